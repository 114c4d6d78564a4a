"""Long series of a table, a row per step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seqnets.datasets.readers.cells import (
    Row,
    check_left_out,
    is_missing,
    is_word,
    leaving_out,
    listed,
    naming,
    need,
    number_of,
    shown,
)
from seqnets.datasets.readers.tables import read_rows
from seqnets.datasets.readers.timestamps import Steps, add_time, insert_steps, parse_time
from seqnets.datasets.series.series import Series
from seqnets.errors import DataError
from seqnets.quoting import override, override_list, shell

TIME, SERIES = "time", "series"


class Columns(NamedTuple):
    """Names of the columns that are not features.

    Attributes:
        time: The timestamp column.
        series: The series column.
        leave_out: Other columns.
    """

    time: str = TIME
    series: str = SERIES
    leave_out: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of these names."""
        return self.time, self.series, *self.leave_out


def read_series(
    path: Path,
    columns: Columns,
    missing: str = "error",
    gaps: str = "error",
    known_ahead: Sequence[str] = (),
    *,
    coming: bool = False,
    known: Sequence[str] | None = None,
) -> Series:
    """Read the series of a table; see :class:`SeriesTable` for its columns.

    Args:
        path: The file.
        columns: Names of the columns that are not features.
        missing: What to do about missing values: see :class:`SeriesTable`.
        gaps: What to do about uneven steps, ``time_gaps`` of :class:`SeriesTable`.
        known_ahead: Columns that are known ahead.
        coming: Whether the last rows of a series may lack all values but theirs.
        known: The columns that a model knows, of a file for prediction: values of others do not
            count, and columns to leave out may be absent.

    Raises:
        DataError: The file is missing or malformed; the message says in which line.
    """
    rows = read_rows(path)
    first = next(rows)
    header, features = list(first[1]), _Features.of(*first, columns, known_ahead, known)
    if gaps == "fill":
        need(*first, columns.time, advice="It shows where a step is missing.")
    kind = ""
    found: dict[str, Steps] = {}
    last: dict[str, list[tuple[str, Row]]] = {}
    for where, row in chain([first], rows):
        _check_columns(where, row, header, columns.series)
        name = str(row[columns.series]) if columns.series in header else ""
        steps = found.setdefault(name, Steps())
        if columns.time in header:
            seconds, found_kind = parse_time(where, columns.time, row.get(columns.time))
            kind = kind or found_kind
            if found_kind != kind:
                raise DataError(
                    f"{where}: {columns.time} is {found_kind}, expected {kind}, as before."
                )
            add_time(where, steps, seconds, kind, str(row[columns.time]), gaps)
        steps.times.append(str(row.get(columns.time, f"step {len(steps.values)}")))
        if coming and features.are_to_come(row):
            last.setdefault(name, []).append((where, row))
            steps.values.append(features.numbers(where, row, "forward"))
            continue
        for before in last.pop(name, ()):  # it was a gap
            features.numbers(*before, missing)
        steps.values.append(features.numbers(where, row, missing))
    if gaps == "fill":
        found = {name: insert_steps(path, steps, kind) for name, steps in found.items()}
    timed = columns.time in header
    series = _concatenate(path, features, found, missing)
    counts = _count_coming(series, features.of_past) if coming else {}
    return replace(series, timed=timed, even=timed and gaps != "ignore", coming=counts)


@dataclass(frozen=True)
class _Features:
    """The columns of a table that are features.

    Attributes:
        names: Their names.
        of_past: Those of them that have values in every step but those to come.
        left_out: Columns that are left out now.
        unknown: Those of them that the model does not know, if the table is for prediction; None
            if it is not.
    """

    names: list[str]
    of_past: Sequence[str]
    left_out: Sequence[str]
    unknown: Sequence[str] | None

    @classmethod
    def of(
        cls,
        where: str,
        row: Row,
        columns: Columns,
        known_ahead: Sequence[str],
        known: Sequence[str] | None,
    ) -> _Features:
        """Those of a table with this first row.

        Raises:
            DataError: There are none, or the row lacks a column that an option names.
        """
        renamed = {columns.time, columns.series} - {TIME, SERIES}
        need(where, row, *sorted(renamed))
        if known is None:
            check_left_out(where, row, columns.leave_out, (columns.time, columns.series))
        names = [name for name in row if name not in columns.all]
        if not names:
            raise DataError(
                f"{naming(where)}: got the columns {listed(row)}, expected one or more of numbers."
            )
        if absent := [name for name in known_ahead if name not in names]:
            raise DataError(
                f"{naming(where)}: got the features {listed(names)}, expected "
                f"{', '.join(absent)} too.\n"
                "  dataset.known_ahead names what is known ahead."
            )
        unknown = None if known is None else [name for name in names if name not in known]
        of_past = [name for name in names if name not in (*known_ahead, *(unknown or ()))]
        return cls(names, of_past, columns.leave_out, unknown)

    def are_to_come(self, row: Row) -> bool:
        """Whether a row has no value of any feature that would have one in the past."""
        return all(is_missing(row.get(name)) for name in self.of_past)

    def numbers(self, where: str, row: Row, missing: str) -> list[float]:
        """The numbers of a row; NaN where one is missing and that is allowed."""
        return [self._number(where, row, column, missing) for column in self.names]

    def _number(self, where: str, row: Row, column: str, missing: str) -> float:
        cell = row.get(column)
        if not is_missing(cell):
            try:
                return number_of(where, column, cell, gaps=True)
            except DataError as error:
                if self.unknown is not None and column not in self.unknown:
                    raise
                raise DataError(f"{error}\n  {self._if_no_number(column, row)}") from None
        if missing != "error":
            return math.nan
        if column in (self.unknown or ()):
            advice = f"The model knows no such column: {self._without(column)}."
        else:
            advice = (
                "dataset.missing=forward repeats the last value, dataset.missing=linear "
                f"interpolates.{self._if_to_come(row)}"
            )
        raise DataError(
            f"{where}: column {column} is {shown(cell)}, expected a number.\n  {advice}"
        )

    def _if_no_number(self, column: str, row: Row) -> str:
        """What to do about a column that has something else than a number in a row."""
        names, cell = self.names if self.unknown is None else self.unknown, row[column]
        option = leaving_out(column, row, names, self.left_out)
        if self.unknown is not None:
            return f"The model knows no such column: {option}."
        is_category = not isinstance(cell, str) or is_word(cell)
        category = "a category: a column of 0 and 1 for each of its values instead; " * is_category
        return (
            f"If the column is a timestamp: {shell(override('dataset.time', column))}; "
            f"a series: {shell(override('dataset.series', column))}; "
            f"{category}not a feature: {option}."
        )

    def _if_to_come(self, row: Row) -> str:
        """What to do if a row is of a step to come, in a line of its own; empty if it has none."""
        there = [name for name in self.names if not is_missing(row.get(name))]
        if not there:
            return ""
        if self.unknown is None:
            option = shell(override_list("dataset.known_ahead", there))
            return f"\n  If the row is of a step to come, what it has is known ahead: {option}."
        extra = ", ".join(name for name in there if name in self.of_past)
        return f"\n  If the row is of a step to come, leave {extra} empty too." * bool(extra)

    def _without(self, column: str) -> str:
        """The option that leaves out a column too."""
        return shell(override_list("dataset.leave_out", [*self.left_out, column]))

    def check_values(self, path: Path, series: str, values: np.ndarray) -> None:
        """Raise DataError if a feature has no value in a series, whose steps are (steps, I)."""
        for column, found in zip(self.names, values.T, strict=True):
            if not np.isfinite(found).any():
                option = self._without(column)
                if self.unknown is None:
                    advice = f"Leave out the column: {option}"
                elif column in self.unknown:
                    advice = f"The model knows no such column: {option}"
                else:
                    advice = "The model reads it"
                other = f"; or remove {series} from the file" * bool(series)
                raise DataError(
                    f"{path}: column {column} of {series or 'the series'} has no value, expected "
                    f"some.\n  {advice}{other}."
                )


def _check_columns(where: str, row: Row, first: list[str], series: str) -> None:
    """Raise DataError if a row has a column that the first lacks, or no series."""
    unknown = next((name for name in row if name not in first), None)
    if unknown is not None:
        raise DataError(
            f"{where}: got a column {unknown}, expected {', '.join(first)}, as in the first row."
        )
    if series in first and row.get(series) in (None, ""):
        raise DataError(f"{where}: column {series} is missing, expected a name in every row.")


def _count_coming(series: Series, of_past: Sequence[str]) -> dict[str, int]:
    """How many steps at the end of each series have no values of these columns."""
    there = np.any(series.observed[:, [name in of_past for name in series.columns]], axis=1)
    found = {}
    for name, start in series.starts.items():
        backwards = there[start : start + series.lengths[name]][::-1]
        found[name] = int(backwards.argmax())
    return found


def _concatenate(path: Path, features: _Features, found: dict[str, Steps], missing: str) -> Series:
    """Concatenate series, with their missing values filled in."""
    pieces = {name: np.array(steps.values) for name, steps in found.items()}
    for name, values in pieces.items():
        features.check_values(path, name, values)
    observed = np.isfinite(np.concatenate([*pieces.values()]))
    filled = np.concatenate([_fill(values, missing) for values in pieces.values()])
    times = [time for steps in found.values() for time in steps.times]
    lengths = {name: len(values) for name, values in pieces.items()}
    return Series(features.names, filled, observed, times, lengths)


def _fill(values: np.ndarray, missing: str) -> np.ndarray:
    """Fill in the missing values of one series, (steps, I), by the method ``missing``."""
    present, steps = np.isfinite(values), np.arange(len(values))
    if missing == "linear":
        columns = zip(values.T, present.T, strict=True)
        return np.stack([np.interp(steps, steps[p], v[p]) for v, p in columns], 1)
    last = np.maximum.accumulate(np.where(present, steps[:, None], -1))
    indices = np.where(last < 0, present.argmax(0), last)
    return np.take_along_axis(values, indices, 0)
