"""Forecasting of a user's own series, read from a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqnets.checks import check_choice, check_fractions
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import (
    check_left_out,
    is_missing,
    leaving_out,
    listed,
    naming,
    need,
    number_of,
    shown,
)
from seqnets.datasets.readers.tables import read_rows
from seqnets.datasets.readers.timestamps import Steps, add_time, insert_steps, parse_time
from seqnets.datasets.series.data import SeriesData
from seqnets.datasets.series.series import Series
from seqnets.errors import ConfigError, DataError
from seqnets.quoting import override, override_list, shell

TIME, SERIES = "time", "series"

MISSING = ("error", "forward", "linear")
GAPS = ("error", "fill", "ignore")


class SeriesTable(SeriesData):
    """Your own series from one table (CSV, TSV, JSON Lines, Parquet), a row per step; forecasting.

    - ``time`` (optional): the timestamp of the step, in ISO 8601 or as a number; increasing within
      each series. Without it, the rows are in order.
    - ``series`` (optional): the series that the step belongs to. Each is split into parts
      separately; all share one model and one scaling.
    - All other columns are features: a number, or a missing value (empty, ``NaN``, ``NA``, ``null``
      or ``?``).

    Where columns are known ahead, the last rows of a series may have values of these alone, or with
    ``calendar`` only a time. They are still to come: training leaves them out, and a forecast of
    the file is one of them.

    Args:
        path: The file.
        time: Name of the timestamp column.
        series: Name of the series column.
        leave_out: Columns that are not features.
        validation_fraction: Fraction of each series' steps for validation.
        test_fraction: Fraction of each series' steps for the test, its last.
        missing: What to do about missing values: "error"; "forward" for the last value (before
            the first value, that one); or "linear" for linear interpolation, with which a window
            that ends in a gap sees the future. Missing values are never scored.
        mask: Whether to add a 0/1 column for each feature that says which values were present.
            These columns are inputs only.
        time_gaps: What to do about uneven steps: "error" unless all steps of a series are as long
            as its first; "fill" to insert the steps that the file lacks, with values according to
            ``missing``; or "ignore", for example for months or working days.
        **data: The arguments of :class:`SeriesData`.
    """

    def __init__(
        self,
        path: str,
        *,
        time: str = TIME,
        series: str = SERIES,
        leave_out: Sequence[str] = (),
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        missing: str = "error",
        mask: bool = False,
        time_gaps: str = "error",
        **data: Any,
    ) -> None:
        super().__init__(**data)
        who = type(self).__name__
        fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
        check_fractions(who, **fractions)
        check_choice(who, MISSING, missing=missing)
        check_choice(who, GAPS, time_gaps=time_gaps)
        if time_gaps == "fill" and missing == "error":
            raise ConfigError(
                f"{who}: missing is 'error', expected forward or linear with time_gaps=fill.\n"
                "  Inserted steps have no values of their own."
            )
        self.path, self.missing, self.mask, self.time_gaps = path, missing, mask, time_gaps
        self.columns = Columns(time, series, tuple(leave_out))
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction

    @property
    def file(self) -> Path:
        """The table."""
        return Path(self.path).expanduser()

    def read(self, path: Path) -> Series:
        """Return the series of a table.

        Raises:
            DataError: The table is malformed, a value is missing, or timestamps are not evenly
                spaced; the message says in which line.
        """
        new = path != self.file
        coming, options = bool(self.columns_ahead), (self.missing, self.time_gaps)
        series = read_series(path, self.columns, *options, self.known_ahead, coming=coming, new=new)
        if not self.mask:
            return series
        masks = [f"{name} is there" for name in series.columns]
        return series.with_inputs(masks, series.observed)

    def ends(self, steps: int) -> Mapping[Part, int]:
        """Return the end of each part, of which the test part is the last."""
        test = steps - round(self.test_fraction * steps)
        return {"train": test - round(self.validation_fraction * steps), "val": test, "test": steps}


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
    new: bool = False,
) -> Series:
    """Read the series of a table; see :class:`SeriesTable` for its columns.

    Args:
        path: The file.
        columns: Names of the columns that are not features.
        missing: What to do about missing values: see :class:`SeriesTable`.
        gaps: What to do about uneven steps, ``time_gaps`` of :class:`SeriesTable`.
        known_ahead: Columns that are known ahead.
        coming: Whether the last rows of a series may lack all values but theirs.
        new: Whether the file is for prediction, in which columns to leave out may be absent.

    Raises:
        DataError: The file is missing or malformed; the message says in which line.
    """
    first: list[str] = []
    features: list[str] = []
    kind = ""
    found: dict[str, Steps] = {}
    last: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in read_rows(path):
        if not first:
            first, features = list(row), _features(where, row, columns, known_ahead, new)
            if gaps == "fill":
                need(where, row, columns.time, advice="It shows where a step is missing.")
        _check_columns(where, row, first, columns.series)
        name = str(row[columns.series]) if columns.series in first else ""
        steps = found.setdefault(name, Steps())
        if columns.time in first:
            seconds, found_kind = parse_time(where, columns.time, row.get(columns.time))
            kind = kind or found_kind
            if found_kind != kind:
                raise DataError(
                    f"{where}: {columns.time} is {found_kind}, expected {kind}, as before."
                )
            add_time(where, steps, seconds, kind, str(row[columns.time]), gaps)
        steps.times.append(str(row.get(columns.time, f"step {len(steps.values)}")))
        if coming and _is_coming(row, features, known_ahead):
            last.setdefault(name, []).append((where, row))
            steps.values.append(_values(where, row, features, columns, "forward", new))
            continue
        for before in last.pop(name, ()):  # it was a gap
            _values(*before, features, columns, missing, new)
        steps.values.append(_values(where, row, features, columns, missing, new))
    if gaps == "fill":
        found = {name: insert_steps(path, steps, kind) for name, steps in found.items()}
    timed = columns.time in first
    series = _concatenate(path, features, columns.leave_out, found, missing, new)
    counts = _count_coming(series, known_ahead) if coming else {}
    return replace(series, timed=timed, even=timed and gaps != "ignore", coming=counts)


def _features(
    where: str, row: dict[str, Any], columns: Columns, known_ahead: Sequence[str], new: bool
) -> list[str]:
    """Return the feature columns of the first row."""
    renamed = {columns.time, columns.series} - {TIME, SERIES}
    need(where, row, *sorted(renamed))
    if not new:
        check_left_out(where, row, columns.leave_out, (columns.time, columns.series))
    features = [name for name in row if name not in columns.all]
    if not features:
        raise DataError(
            f"{naming(where)}: got the columns {listed(row)}, expected one or more of numbers."
        )
    if absent := [name for name in known_ahead if name not in features]:
        raise DataError(
            f"{naming(where)}: got the features {listed(features)}, expected "
            f"{', '.join(absent)} too.\n"
            "  dataset.known_ahead names what is known ahead."
        )
    return features


def _check_columns(where: str, row: dict[str, Any], first: list[str], series: str) -> None:
    """Raise DataError if a row has a column that the first lacks, or no series."""
    unknown = next((name for name in row if name not in first), None)
    if unknown is not None:
        raise DataError(
            f"{where}: got a column {unknown}, expected {', '.join(first)}, as in the first row."
        )
    if series in first and row.get(series) in (None, ""):
        raise DataError(f"{where}: column {series} is missing, expected a name in every row.")


def _is_coming(row: dict[str, Any], features: Sequence[str], known_ahead: Sequence[str]) -> bool:
    """Whether a row has values only of columns that are known ahead."""
    return all(is_missing(row.get(name)) for name in features if name not in known_ahead)


def _count_coming(series: Series, known_ahead: Sequence[str]) -> dict[str, int]:
    """Return how many steps at the end of each series have values only of columns known ahead."""
    others = [name not in known_ahead for name in series.columns]
    there = np.any(series.observed[:, others], axis=1)
    found = {}
    for name, start in series.starts.items():
        backwards = there[start : start + series.lengths[name]][::-1]
        found[name] = int(backwards.argmax())
    return found


def _values(
    where: str,
    row: dict[str, Any],
    features: Sequence[str],
    columns: Columns,
    missing: str,
    new: bool,
) -> list[float]:
    """Return the numbers of a row; see :func:`_value`."""
    return [_value(where, name, row, features, columns, missing, new) for name in features]


def _value(
    where: str,
    column: str,
    row: dict[str, Any],
    features: Sequence[str],
    columns: Columns,
    missing: str,
    new: bool,
) -> float:
    """Return a cell's number; NaN if it is missing and that is allowed."""
    cell = row.get(column)
    if not is_missing(cell):
        try:
            return number_of(where, column, cell, gaps=True)
        except DataError as error:
            option = leaving_out(column, row, features, columns.leave_out)
            advice = f"If the model knows no such column: {option}."
            if not new:
                advice = (
                    f"If the column is a timestamp: {shell(override('dataset.time', column))}; a "
                    f"series: {shell(override('dataset.series', column))}; a category: a column "
                    f"of 0 and 1 for each of its values instead; not a feature: {option}."
                )
            raise DataError(f"{error}\n  {advice}") from None
    if missing == "error":
        raise DataError(
            f"{where}: column {column} is {shown(cell)}, expected a number.\n"
            "  dataset.missing=forward repeats the last value, dataset.missing=linear interpolates."
        )
    return math.nan


def _concatenate(
    path: Path,
    columns: list[str],
    left_out: Sequence[str],
    found: dict[str, Steps],
    missing: str,
    new: bool,
) -> Series:
    """Concatenate series, with their missing values filled in."""
    pieces = []
    for name, steps in found.items():
        values = np.array(steps.values)
        for column, series in zip(columns, values.T, strict=True):
            if not np.isfinite(series).any():
                option = shell(override_list("dataset.leave_out", [*left_out, column]))
                advice = "If the model knows no such column" if new else "Leave out the column"
                other = f"; or remove {name} from the file" * bool(name)
                raise DataError(
                    f"{path}: column {column} of {name or 'the series'} has no value, expected "
                    f"some.\n  {advice}: {option}{other}."
                )
        pieces.append(values)
    raw = np.concatenate(pieces)
    filled = np.concatenate([_fill(piece, missing) for piece in pieces])
    times = [time for steps in found.values() for time in steps.times]
    lengths = {name: len(steps.values) for name, steps in found.items()}
    return Series(columns, filled, np.isfinite(raw), times, lengths)


def _fill(values: np.ndarray, missing: str) -> np.ndarray:
    """Fill in the missing values of one series, (steps, I), by the method ``missing``."""
    present, steps = np.isfinite(values), np.arange(len(values))
    if missing == "linear":
        columns = zip(values.T, present.T, strict=True)
        return np.stack([np.interp(steps, steps[p], v[p]) for v, p in columns], 1)
    last = np.maximum.accumulate(np.where(present, steps[:, None], -1))
    indices = np.where(last < 0, present.argmax(0), last)
    return np.take_along_axis(values, indices, 0)
