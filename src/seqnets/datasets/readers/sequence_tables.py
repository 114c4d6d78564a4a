"""Sequences in tables, with one row per step or one row per sequence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.datasets.readers.cells import (
    Row,
    check_left_out,
    features_of,
    listed,
    naming,
    need,
    shown,
    text_of,
)
from seqnets.datasets.readers.clocks import Clock
from seqnets.datasets.readers.folders import joined, read_file
from seqnets.datasets.readers.recordings import check_columns, read_recording
from seqnets.datasets.readers.records import (
    FILE,
    ID,
    SEQUENCE,
    SPLIT,
    TIME,
    Names,
    Record,
    Source,
    Wanted,
)
from seqnets.datasets.readers.tables import read_rows
from seqnets.errors import DataError, counted

TEXT, STEPS = "text", "x"


def read_table(path: Path, wanted: Wanted) -> Source:
    """Read the sequences of a table; its columns determine the layout.

    - ``sequence``: one row per step. The rows of a sequence are adjacent and agree in targets,
      group, weight and split; all other columns are features, but those to leave out.
    - ``text``: one row per sequence, which is the text.
    - ``x``: one row per sequence, whose steps are a list of numbers or of lists of numbers.
    - ``file``, without any of these: one row per sequence, which is in a file of its own.

    A column of targets is none of these. New data without ``sequence`` and ``file``, for a model
    whose features have names, are one sequence, one row per step.

    Raises:
        DataError: The table is malformed or has another layout; the message says in which line.
    """
    rows = read_rows(path)
    where, first = next(rows)
    rows = chain([(where, first)], rows)
    layouts = [name for name in (SEQUENCE, TEXT, STEPS) if name not in wanted.columns]
    unread = wanted.leave_out if wanted.new else ()
    kinds = [column for column in layouts if column in first and column not in unread]
    if SEQUENCE in kinds:
        if not wanted.new:
            check_left_out(where, first, wanted.leave_out, (SEQUENCE, SPLIT, *wanted.about))
        if wanted.clock is not None:
            wanted.clock.need(where, first)
        return _rows_of_steps(rows, first, wanted)
    has_features = not first.keys().isdisjoint(wanted.features or ())
    names_files = FILE in first and (FILE not in wanted.leave_out or not has_features)
    if wanted.features and not names_files and (not kinds or has_features):
        steps, facts = read_recording(path, wanted)
        name = str(path) if wanted.folder is None else None  # standard input has no name
        return joined([(str(path), Record(str(path), steps, id=name), facts)])
    if len(kinds) == 1:
        clock = wanted.clock if kinds[0] == STEPS else None
        records = list(_rows_of_sequences(rows, kinds[0], wanted, clock))
        return Source(records, {} if clock is None else {TIME: clock.kind})
    if not kinds and FILE in first:
        return joined(_rows_of_files(path, rows, wanted))
    raise DataError(
        f"{naming(where)}: got the columns {listed(first)}, expected one of "
        f"{SEQUENCE} (a row per step), {', '.join(layouts[1:])} or {FILE} (a row per sequence).\n"
        f"  The column that says which sequence a step belongs to must be called {SEQUENCE}. "
        "docs/data.md shows each kind."
    )


def _rows_of_steps(rows: Iterator[tuple[str, Row]], first: Row, wanted: Wanted) -> Source:
    """Read a table with one row per step; ``first`` is its first row."""
    others = (SEQUENCE, SPLIT, *wanted.about, *wanted.leave_out, wanted.time)
    features = [column for column in first if column not in others]
    names, clock = Names(), wanted.clock
    records: list[Record] = []
    steps: list[list[list[float]]] = []
    for where, row in rows:
        check_columns(where, row, first, features)
        step = wanted.record(where, row, "", row[SEQUENCE])
        if not records or step.id != records[-1].id:
            names.add(where, step.id)
            records.append(step)
            steps.append([])
            if clock is not None:
                clock.begin()
        first_step = records[-1]
        for what, found, expected in (
            (", ".join(wanted.columns), step.target, first_step.target),
            (SPLIT, step.split, first_step.split),
            (wanted.groups, step.group, first_step.group),
            (wanted.weight, step.weight, first_step.weight),
        ):
            if found != expected:
                raise DataError(
                    f"{where}: {what} is {shown(found)}, expected {shown(expected)}.\n"
                    f"  Sequence {shown(step.id)} has that value since {first_step.where}."
                )
        step_values = features_of(where, row, features, wanted.leave_out, wanted.value)
        if clock is not None:
            step_values.append(clock.read(where, row[clock.column]))
        steps[-1].append(step_values)
    for record, values in zip(records, steps, strict=True):
        record.steps = np.array(values, np.float64)
    facts: dict[str, Any] = {"features": features}
    if clock is not None:
        facts = {"features": [*features, clock.column], TIME: clock.kind}
    return Source(records, facts, frozenset(wanted.leave_out))


def _rows_of_sequences(
    rows: Iterator[tuple[str, Row]], kind: str, wanted: Wanted, clock: Clock | None
) -> Iterator[Record]:
    """Yield the sequences of a table with one row per sequence."""
    names = Names()
    for where, row in rows:
        need(where, row, kind)
        if ID in row:
            names.add(where, row[ID])
        steps = (
            text_of(where, kind, row[kind]) if kind == TEXT else _steps(where, row, wanted, clock)
        )
        yield wanted.record(where, row, steps, row.get(ID))


def _rows_of_files(
    path: Path, rows: Iterator[tuple[str, Row]], wanted: Wanted
) -> Iterator[tuple[str, Record, dict[str, Any]]]:
    """Yield the files that a table's rows name, relative to the table's folder or another."""
    folder = path.parent if wanted.folder is None else wanted.folder
    names = Names()
    for where, row in rows:
        need(where, row, FILE)
        name = text_of(where, FILE, row[FILE])
        if ID in row:
            names.add(where, row[ID])
        try:
            steps, facts = read_file(folder / Path(name).expanduser(), wanted)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        yield f"{where}, {name}", wanted.record(where, row, steps, row.get(ID, name)), facts


def _steps(where: str, row: Row, wanted: Wanted, clock: Clock | None) -> np.ndarray:
    """The steps in a cell, (T, I): a list of numbers, or of lists of I numbers each.

    Times in another cell are one more number of each.
    """
    cell = row[STEPS]
    if not isinstance(cell, list) or not cell:
        raise DataError(
            f"{where}: column {STEPS} is {shown(cell)}, expected a list of steps, at least one.\n"
            f"  If a row is one step, column {SEQUENCE} has to say of which sequence."
        )
    size = len(cell[0]) if isinstance(cell[0], list) else None
    values = []
    for place, step in enumerate(cell, start=1):
        found = len(step) if isinstance(step, list) else None
        if found != size or size == 0:
            expected = "a number" if size is None else f"a list of {counted(size or 1, 'number')}"
            raise DataError(
                f"{where}: step {place} of column {STEPS} is {shown(step)}, expected {expected}"
                f"{' as the first step is' if place > 1 else ''}."
            )
        name = f"{STEPS}, step {place}"
        values.append([wanted.value(where, name, v) for v in (step if size else [step])])
    if clock is not None:
        values = clock.beside(where, row, values)
    return np.array(values, np.float64)
