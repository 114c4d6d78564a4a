"""Tables that are one sequence each, with a row per step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.datasets.readers.cells import (
    Row,
    features_of,
    leaving_out,
    listed,
    named,
    naming,
    need,
)
from seqnets.datasets.readers.records import FILE, ID, SEQUENCE, SPLIT, TIME, Wanted
from seqnets.datasets.readers.tables import read_rows
from seqnets.errors import DataError

LEFT_OUT = "left out"
"""Where a recording's facts have its columns that are left out, which others may lack."""


def read_recording(path: Path, wanted: Wanted) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a table whose rows are the steps of one sequence; its columns are the features.

    Returns:
        Features, (T, I), and the facts about them, with their names in the order of the file. The
        time is the last one, if it is wanted.

    Raises:
        DataError: The table is malformed, a cell is not a number, or a column is one of the table
            that names this file; the message says in which line.
    """
    rows = read_rows(path)
    where, first = next(rows)
    clock = wanted.clock
    if clock is not None:
        clock.need(where, first)
    features = [column for column in first if column not in (*wanted.leave_out, wanted.time)]
    left_out = first.keys() - features - {wanted.time}
    of_table = (SEQUENCE, ID, FILE, SPLIT, *wanted.about)
    foreign = next((column for column in features if column in of_table), None)
    if foreign is not None:
        option = leaving_out(foreign, first, [foreign], wanted.leave_out)
        raise DataError(
            f"{naming(where)}: got column {named(foreign)}, expected only features of one "
            "sequence: what else is known of it stands in a table that names its file.\n"
            f"  Rename it, or leave it out: {option}."
        )
    steps = []
    for place, row in chain([(where, first)], rows):
        check_columns(place, row, first, features)
        values = features_of(place, row, features, wanted.leave_out, wanted.value)
        if clock is not None:
            values.append(clock.read(place, row[clock.column]))
        steps.append(values)
    facts: dict[str, Any] = {"kind": "table", "features": features, LEFT_OUT: left_out}
    if clock is not None:
        facts |= {"features": [*features, clock.column], TIME: clock.kind}
    return np.array(steps, np.float64), facts


def check_columns(where: str, row: Row, first: Row, features: Sequence[str]) -> None:
    """Raise DataError if a step has other columns than the first row, or no features."""
    need(where, row, *first)
    if len(row) > len(first):
        more = next(column for column in row if column not in first)
        raise DataError(
            f"{where}: got column {named(more)}, expected those of the first row: {listed(first)}."
        )
    if not features:
        raise DataError(
            f"{naming(where)}: got the columns {listed(first)}, expected one or more features "
            "beside them."
        )
