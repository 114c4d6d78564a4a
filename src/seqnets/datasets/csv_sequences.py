"""A user's own labelled sequences, from one CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.datasets.base import PARTS, Part, check_fractions
from seqnets.datasets.classification import LabelledData
from seqnets.datasets.files import check_text, parse_number
from seqnets.datasets.sequences import Sequences, Splits, split_off, standardise
from seqnets.errors import DataError

SEQUENCE, LABEL, SPLIT = "sequence", "label", "split"


class CSVSequences(LabelledData):
    """Your own labelled sequences from one CSV file, a row a step; classification.

    The first line names the columns:

    - ``sequence``: the id of the sequence that the step belongs to. Its steps stand in order in
      rows that follow each other.
    - ``label``: the sequence's class, the same in all of its rows.
    - ``split`` (optional): ``train``, ``val`` or ``test``, the same in all of its rows. Without
      the column, or without a part, that part is a share of the training sequences.
    - every other column is a feature: a finite number.

    Args:
        path: The file, UTF-8, with commas.
        test_fraction: Share of the sequences of each class to report, where no row says test.
        **data: The arguments of :class:`LabelledData`.
    """

    def __init__(self, path: str, *, test_fraction: float = 0.2, **data: Any) -> None:
        super().__init__(**data)
        check_fractions(
            type(self).__name__,
            validation_fraction=self.validation_fraction,
            test_fraction=test_fraction,
        )
        self.path, self.test_fraction = path, test_fraction

    def read_splits(self) -> Splits:
        """Return the sequences of all parts.

        Raises:
            DataError: The file is missing or malformed; says in which line.
        """
        path = Path(self.path).expanduser()
        records = read_csv(path)
        labels = sorted({record.label for record in records if record.split == "train"})
        if not labels:
            raise DataError(f"{path}: no sequence is for training, expected some of split 'train'.")
        for record in records:
            if record.label not in labels:
                raise DataError(
                    f"{path}, line {record.line}: label {record.label!r} came in the "
                    f"{record.split} part, expected one of the training part: {', '.join(labels)}."
                )
        parts: dict[Part, Sequences] = {}
        for name in PARTS:
            chosen = [record for record in records if record.split == name]
            if chosen:
                numbers = [labels.index(record.label) for record in chosen]
                parts[name] = Sequences.of([np.array(r.steps) for r in chosen], numbers)
        shares: dict[Part, float] = {"test": self.test_fraction, "val": self.validation_fraction}
        for name, share in shares.items():
            if name not in parts:
                parts["train"], parts[name] = split_off(str(path), parts["train"], share, self.seed)
        splits = Splits(parts, labels)
        return standardise(splits) if self.standardise else splits


@dataclass
class Record:
    """One sequence of a CSV file, and the line where it begins."""

    name: str
    label: str
    split: str
    line: int
    steps: list[list[float]] = field(default_factory=list)


def read_csv(path: Path) -> list[Record]:
    """Read a file with one step a row; :class:`CSVSequences` says which columns it has.

    Raises:
        DataError: The file is missing, not UTF-8, has no such columns, or a row does not fit; says
            in which line.
    """
    check_text(path)
    records: dict[str, Record] = {}
    last = None
    for line, row, steps in _read_rows(path):
        record = Record(row[SEQUENCE], row[LABEL], row.get(SPLIT, "train"), line)
        if record.name != last:
            if record.name in records:
                raise DataError(
                    f"{path}, line {line}: sequence {record.name!r} comes again, expected its rows "
                    f"to follow those from line {records[record.name].line} on.\n"
                    "  Sort the file by sequence, or give this one an id of its own."
                )
            if record.split not in PARTS:
                raise DataError(
                    f"{path}, line {line}: split {record.split!r} came, "
                    f"expected {', '.join(PARTS)}."
                )
            records[record.name] = record
        first = records[record.name]
        if (record.label, record.split) != (first.label, first.split):
            raise DataError(
                f"{path}, line {line}: label {record.label!r} and split {record.split!r} came, "
                f"expected {first.label!r} and {first.split!r}.\n"
                f"  Sequence {record.name!r} has them since line {first.line}."
            )
        first.steps.append(steps)
        last = record.name
    if not records:
        raise DataError(f"{path}: no row came after the first line, expected one a step.")
    return list(records.values())


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str], list[float]]]:
    """Yield the line number, all columns as text, and the features of each row."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            columns = next(rows)
            features = [name for name in columns if name not in (SEQUENCE, LABEL, SPLIT)]
            _check_columns(path, columns, features)
            for cells in rows:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path}, line {rows.line_num}: {len(cells)} cells came, "
                        f"expected {len(columns)}: {', '.join(columns)}."
                    )
                row = dict(zip(columns, cells, strict=True))
                values = [_number(path, rows.line_num, name, row[name]) for name in features]
                yield rows.line_num, row, values
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num}: not CSV: {error}.") from None


def _check_columns(path: Path, columns: list[str], features: list[str]) -> None:
    missing = [name for name in (SEQUENCE, LABEL) if name not in columns]
    if missing or not features or len(set(columns)) < len(columns):
        raise DataError(
            f"{path}, line 1: the columns {', '.join(columns)} came, expected {SEQUENCE}, {LABEL}, "
            f"optionally {SPLIT}, and one or more features, each name once.\n"
            "  The first line names the columns, with commas between them."
        )


def _number(path: Path, line: int, column: str, cell: str) -> float:
    value = parse_number(cell)
    if math.isnan(value):
        raise DataError(
            f"{path}, line {line}: column {column} is {cell!r}, expected a finite number.\n"
            "  Missing values must be filled in before."
        )
    return value
