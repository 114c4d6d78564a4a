"""Baselines of datasets: models that need little or no training."""
