"""Readers of user files, whose errors name file, line and column."""

from seqnets.datasets.readers.audio import LogMel

__all__ = ["LogMel"]
