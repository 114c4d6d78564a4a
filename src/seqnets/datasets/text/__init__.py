"""Texts as ids, and language models' data."""
