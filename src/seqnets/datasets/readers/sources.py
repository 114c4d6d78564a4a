"""Whole sequences from a path of any supported kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from seqnets.datasets.readers import tables
from seqnets.datasets.readers.arrays import read_npz
from seqnets.datasets.readers.folders import KINDS, TRANSCRIPT, read_files, read_folder
from seqnets.datasets.readers.records import TIME, Record, Source, Wanted
from seqnets.datasets.readers.sequence_tables import read_table
from seqnets.datasets.readers.ts import read_ts_records
from seqnets.errors import DataError, counted


def read_source(path: Path, wanted: Wanted) -> Source:
    """Read a table, an archive of arrays, a ``.ts`` file or a folder; docs/data.md describes each.

    For prediction, a single recording, sound, image, array or text is accepted too.

    Raises:
        DataError: The file is missing or malformed; the message says where.
    """
    suffix = path.suffix.lower()
    for key, name, said in (
        ("groups", wanted.groups, "which group a sequence belongs to"),
        ("weight", wanted.weight, "how much a sequence counts"),
    ):
        if name is not None and not wanted.new and (path.is_dir() or suffix == ".ts"):
            raise DataError(
                f"{path}: does not say {said}, expected a table or an archive with {name}.\n"
                f"  dataset.{key} names a column; a table may name files in its column file."
            )
    if path.is_dir():
        source = read_folder(path, wanted)
    elif suffix in tables.SUFFIXES:
        source = read_table(path, wanted)
    elif suffix == ".npz":
        source = read_npz(path, wanted)
    elif suffix == ".ts" and not wanted.transcribed:
        source = read_ts_records(path, wanted)
    elif suffix in KINDS and wanted.new:
        source = read_files([path], wanted)
    else:
        folder = f"with NAME{TRANSCRIPT} beside each file"
        suffixes = [*tables.SUFFIXES, ".npz"]
        if not wanted.transcribed:
            folder = "with one folder per class"
            suffixes.append(".ts")
        if wanted.new:
            folder = "of files"
            suffixes += [suffix for suffix in KINDS if suffix not in suffixes]
        *first, last = suffixes
        raise DataError(
            f"{path}: {'a file of no kind that can be read' if path.exists() else 'no such file'}, "
            f"expected a folder {folder}, or a name that ends with {', '.join(first)} or {last}."
        )
    if wanted.time is not None and TIME not in source.facts:
        raise DataError(
            f"{path}: does not say when steps are, expected a table of numbers, recordings or an "
            f"archive with {wanted.time}.\n  dataset.time names a column."
        )
    return replace(source, facts={"features": _features(source.records), **source.facts})


def _features(records: list[Record]) -> int | str:
    """The number of features per step, the same in all records, or "text"."""
    first = records[0].steps
    if isinstance(first, str):
        return "text"
    size = first.shape[1]
    for record in records:
        if isinstance(record.steps, np.ndarray) and record.steps.shape[1] != size:
            raise DataError(
                f"{record.where}: got {counted(record.steps.shape[1], 'feature')} a step, "
                f"expected {size} as at {records[0].where}."
            )
    return size
