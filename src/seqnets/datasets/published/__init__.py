"""Data sets that others have published, one a file."""
