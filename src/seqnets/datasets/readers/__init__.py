"""Readers of user files, whose errors name file, line and column."""

from seqnets.datasets.readers.audio import LogMel
from seqnets.datasets.readers.cells import few, is_missing, need, number, shown, text
from seqnets.datasets.readers.records import Record, Source, Wanted
from seqnets.datasets.readers.sources import read_source
from seqnets.datasets.readers.tables import SUFFIXES, read_rows

__all__ = [
    "SUFFIXES",
    "LogMel",
    "Record",
    "Source",
    "Wanted",
    "few",
    "is_missing",
    "need",
    "number",
    "read_rows",
    "read_source",
    "shown",
    "text",
]
