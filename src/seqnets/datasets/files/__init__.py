"""Datasets of a user's own files."""
