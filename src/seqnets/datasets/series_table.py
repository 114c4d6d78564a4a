"""Forecasting of a user's own series, read from a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqnets.checks import check_choice, check_fractions, is_number
from seqnets.datasets.base import Part
from seqnets.datasets.files import parse_number
from seqnets.datasets.readers import is_missing, need, number, read_rows, shown
from seqnets.datasets.readers.tables import check_left_out, leaving_out, named
from seqnets.datasets.series import Series, SeriesData
from seqnets.errors import ConfigError, DataError, counted
from seqnets.quoting import override, shell

TIME, SERIES = "time", "series"

MISSING = ("error", "forward", "linear")
GAPS = ("error", "fill", "ignore")

_NUMBER, _BARE, _ZONED = "a number", "a time without a zone", "a time with a zone"

_SERIES_ADVICE = "  If the file has several series, name the column: dataset.series=COLUMN."


class SeriesTable(SeriesData):
    """Your own series from one table (CSV, TSV, JSON Lines, Parquet), a row per step; forecasting.

    - ``time`` (optional): the timestamp of the step, in ISO 8601 or as a number; increasing within
      each series. Without it, the rows are in order.
    - ``series`` (optional): the series that the step belongs to. Each is split into parts
      separately; all share one model and one scaling.
    - All other columns are features: a number, or a missing value (empty, ``NaN``, ``NA``, ``null``
      or ``?``).

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
        series = read_series(path, self.columns, self.missing, self.time_gaps, new=new)
        if not self.mask:
            return series
        masks = [f"{name} is there" for name in series.columns]
        return Series(
            [*series.columns, *masks],
            np.concatenate([series.values, series.observed], 1),
            np.concatenate([series.observed, np.ones_like(series.observed)], 1),
            series.times,
            series.lengths,
            masks,
        )

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


@dataclass
class _Steps:
    """The steps of one series, in file order.

    Attributes:
        values: Features of each step, NaN where missing.
        times: Timestamp of each step, as text.
        seconds: Timestamp of each step, in seconds or the units of a numeric column.
    """

    values: list[list[float]] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def read_series(
    path: Path,
    columns: Columns,
    missing: str = "error",
    gaps: str = "error",
    *,
    new: bool = False,
) -> Series:
    """Read the series of a table; see :class:`SeriesTable` for its columns.

    Args:
        path: The file.
        columns: Names of the columns that are not features.
        missing: What to do about missing values: see :class:`SeriesTable`.
        gaps: What to do about uneven steps, ``time_gaps`` of :class:`SeriesTable`.
        new: Whether the file is for prediction, in which columns to leave out may be absent.

    Raises:
        DataError: The file is missing or malformed; the message says in which line.
    """
    first: list[str] = []
    features: list[str] = []
    kind = ""
    found: dict[str, _Steps] = {}
    for where, row in read_rows(path):
        if not first:
            first, features = list(row), _features(where, row, columns, new)
            if gaps == "fill":
                need(where, row, columns.time, advice="It shows where a step is missing.")
        _check_columns(where, row, first, columns.series)
        steps = found.setdefault(
            str(row[columns.series]) if columns.series in first else "", _Steps()
        )
        if columns.time in first:
            seconds, found_kind = _parse_time(where, columns.time, row.get(columns.time))
            kind = kind or found_kind
            if found_kind != kind:
                raise DataError(
                    f"{where}: {columns.time} is {found_kind}, expected {kind}, as before."
                )
            _add_time(where, steps, seconds, kind, str(row[columns.time]), gaps)
        steps.times.append(str(row.get(columns.time, f"step {len(steps.values)}")))
        steps.values.append(
            [_value(where, name, row, features, columns, missing) for name in features]
        )
    if gaps == "fill":
        found = {name: _insert_steps(path, steps, kind) for name, steps in found.items()}
    return _concatenate(path, features, found, missing)


def _features(where: str, row: dict[str, Any], columns: Columns, new: bool) -> list[str]:
    """Return the feature columns of the first row."""
    renamed = {columns.time, columns.series} - {TIME, SERIES}
    need(where, row, *sorted(renamed))
    if not new:
        advice = "dataset.leave_out names columns that are not features."
        need(where, row, *columns.leave_out, advice=advice)
        check_left_out(where, columns.leave_out, (columns.time, columns.series))
    features = [name for name in row if name not in columns.all]
    if not features:
        raise DataError(
            f"{where}: got the columns {', '.join(map(named, row))}, expected one or "
            "more of numbers."
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


def _value(
    where: str,
    column: str,
    row: dict[str, Any],
    features: Sequence[str],
    columns: Columns,
    missing: str,
) -> float:
    """Return a cell's number; NaN if it is missing and that is allowed."""
    cell = row.get(column)
    if not is_missing(cell):
        try:
            return number(where, column, cell)
        except DataError as error:
            option = leaving_out(column, row, features, columns.leave_out)
            raise DataError(
                f"{error}\n"
                f"  If the column is a timestamp: {shell(override('dataset.time', column))}; a "
                f"series: {shell(override('dataset.series', column))}; not a feature: {option}."
            ) from None
    if missing == "error":
        raise DataError(
            f"{where}: column {column} is {shown(cell)}, expected a number.\n"
            "  dataset.missing=forward repeats the last value, dataset.missing=linear interpolates."
        )
    return math.nan


def _parse_time(where: str, column: str, cell: Any) -> tuple[float, str]:
    """Return a timestamp, in seconds or as the number it is, and the kind of timestamp."""
    if is_number(cell) and math.isfinite(cell):
        return float(cell), _NUMBER
    if isinstance(cell, str) and math.isfinite(value := parse_number(cell)):
        return value, _NUMBER
    moment = cell
    if isinstance(cell, str):
        try:
            moment = datetime.fromisoformat(cell.strip().replace("Z", "+00:00"))
        except ValueError:
            moment = None
    elif isinstance(cell, date) and not isinstance(cell, datetime):
        moment = datetime.combine(cell, time())
    if not isinstance(moment, datetime):
        raise DataError(
            f"{where}: {column} is {shown(cell)}, expected a time such as 2026-01-31 or "
            "2026-01-31 12:00:00, or a number."
        )
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc).timestamp(), _BARE
    return moment.timestamp(), _ZONED


def _add_time(where: str, steps: _Steps, seconds: float, kind: str, time: str, gaps: str) -> None:
    """Append a timestamp, after checking that time increases, and evenly unless that may vary."""
    before = steps.times[-1] if steps.times else None
    steps.seconds.append(seconds)
    if before is None:
        return
    length = seconds - steps.seconds[-2]
    if length == 0:
        raise DataError(f"{where}: got time {time} twice, expected each once.\n{_SERIES_ADVICE}")
    if length < 0:
        raise DataError(
            f"{where}: got time {time} after {before}, expected a later one.\n"
            f"  Sort the file by time.\n{_SERIES_ADVICE}"
        )
    step = steps.seconds[1] - steps.seconds[0]
    if gaps == "error" and abs(length - step) > _tolerance(step, seconds):
        raise DataError(
            f"{where}: got time {time} after {before}, a step of {_duration(length, kind)}, "
            f"expected {_duration(step, kind)}, the length of the first step.\n"
            "  dataset.time_gaps=fill inserts the missing steps, dataset.time_gaps=ignore treats "
            "all steps as equal."
        )


_MAX_FILL = 100
"""Maximum ratio of steps after filling to steps in the file: more indicates a wrong timestamp."""


def _tolerance(step: float, seconds: float) -> float:
    """Return by how much steps may differ, as timestamps such as 0.1 s are not exact in binary."""
    return 1e-6 * step + 4 * math.ulp(seconds)


def _duration(length: float, kind: str) -> str:
    """Return the length of a step as text."""
    return f"{length:g}" if kind == _NUMBER else str(timedelta(seconds=length))


def _insert_steps(path: Path, steps: _Steps, kind: str) -> _Steps:
    """Insert the missing steps of a series, whose shortest step is the sampling interval."""
    seconds, lengths = steps.seconds, np.diff(steps.seconds)
    if not len(lengths):
        return steps
    step = float(lengths.min())
    counts = np.rint(lengths / step)
    uneven = np.abs(lengths - counts * step) > _tolerance(step, seconds[-1]) * counts
    if uneven.any():
        index = int(uneven.argmax())
        raise DataError(
            f"{path}: got time {steps.times[index + 1]} after {steps.times[index]}, a step of "
            f"{_duration(float(lengths[index]), kind)}, expected a multiple of the shortest, "
            f"{_duration(step, kind)} before {steps.times[int(lengths.argmin()) + 1]}.\n"
            "  Correct the wrong one, or treat all steps as equal: dataset.time_gaps=ignore."
        )
    indices = np.concatenate([[0], counts.cumsum()]).astype(int)
    if indices[-1] >= _MAX_FILL * len(seconds):
        index = int(counts.argmax())
        raise DataError(
            f"{path}: {counted(len(seconds), 'row')} would become {indices[-1] + 1:,} steps of "
            f"{_duration(step, kind)}, expected at most {_MAX_FILL} times as many.\n"
            f"  The longest gap is after {steps.times[index]}. Correct wrong times, or treat all "
            "steps as equal: dataset.time_gaps=ignore."
        )
    values = np.full((indices[-1] + 1, len(steps.values[0])), np.nan)
    values[indices] = steps.values
    times = [_format_time(seconds[0] + step * index, kind) for index in range(len(values))]
    for index, time_in_file in zip(indices.tolist(), steps.times, strict=True):
        times[index] = time_in_file
    return _Steps(values.tolist(), times)


def _format_time(seconds: float, kind: str) -> str:
    """Return the timestamp of an inserted step as text."""
    if kind == _NUMBER:
        return f"{seconds:.15g}"
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return str(when if kind == _ZONED else when.replace(tzinfo=None))


def _concatenate(path: Path, columns: list[str], found: dict[str, _Steps], missing: str) -> Series:
    """Concatenate series, with their missing values filled in."""
    pieces = []
    for name, steps in found.items():
        values = np.array(steps.values)
        for column, series in zip(columns, values.T, strict=True):
            if not np.isfinite(series).any():
                raise DataError(
                    f"{path}: column {column} of {name or 'the series'} has no value, expected "
                    "some.\n  Leave the column or the series out of the file."
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
    filled: np.ndarray = np.take_along_axis(values, indices, 0)
    return filled
