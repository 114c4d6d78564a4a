"""Metrics that need no library, and BLEU."""
