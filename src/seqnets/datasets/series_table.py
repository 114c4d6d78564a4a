"""Series of a user's own, from one table."""

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
from seqnets.datasets.series import Series, SeriesData
from seqnets.errors import ConfigError, DataError, counted

TIME, SERIES = "time", "series"

MISSING = ("error", "forward", "linear")
GAPS = ("error", "fill", "ignore")

_NUMBER, _BARE, _ZONED = "a number", "a time without a zone", "a time with a zone"

_APART = "  A column that tells several series apart: dataset.series=COLUMN."


class SeriesTable(SeriesData):
    """Your own series from one table (CSV, TSV, JSON Lines, Parquet), a row a step; forecasting.

    - ``time`` (optional): when the step was: ISO 8601, or a number. Each row is later than the one
      before it of its series.
    - ``series`` (optional): the series that the step belongs to. Each is cut into parts of its own,
      and all share one model and one scaling.
    - every other column is a feature: a number, or missing: empty, ``NaN``, ``NA``, ``null`` or
      ``?``.

    Without ``time`` the rows stand in order.

    Args:
        path: The file.
        time: The column that says when a step was, if it is called otherwise.
        series: The column that says which series a step belongs to, if it is called otherwise.
        leave_out: Columns that are no features.
        validation_fraction: Share of each series' steps to choose by.
        test_fraction: Share of each series' steps to report, its last.
        missing: "error"; "forward", where the last value stays (and the first one stands for what
            is missing before it); or "linear", a line to the next value, which looks into the
            future: a window that ends in a gap gives what it could not know. Values that are
            missing are never scored.
        mask: Whether a 0/1 column beside each feature says what was there. It is given and never
            told.
        time_gaps: "error" unless all steps of a series are as long as its first; "fill", which puts
            in the steps that the file lacks, as ``missing`` says; or "ignore", for months, or
            working days.
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
                "  Steps that are put in have no values of their own."
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
            DataError: The table is malformed, or a value is missing, or time does not go on evenly;
                says in which line.
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
        """The last steps are for the test part, those before them for validation."""
        test = steps - round(self.test_fraction * steps)
        return {"train": test - round(self.validation_fraction * steps), "val": test, "test": steps}


class Columns(NamedTuple):
    """What columns that are no features are called.

    Attributes:
        time: When a step was.
        series: Which series it belongs to.
        leave_out: All others.
    """

    time: str = TIME
    series: str = SERIES
    leave_out: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them."""
        return self.time, self.series, *self.leave_out


@dataclass
class _Steps:
    """The steps of one series, as they are read."""

    values: list[list[float]] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)


def read_series(
    path: Path,
    columns: Columns,
    missing: str = "error",
    gaps: str = "error",
    *,
    new: bool = False,
) -> Series:
    """Read the series of a table; :class:`SeriesTable` says which columns it has.

    Args:
        path: The file.
        columns: What columns that are no features are called.
        missing: What is put where no value is: see :class:`SeriesTable`.
        gaps: What becomes of steps of different lengths: see :class:`SeriesTable`.
        new: Whether the file is to be predicted: what is left out may be absent from it.

    Raises:
        DataError: The file is missing or malformed; says in which line.
    """
    first: list[str] = []
    features: list[str] = []
    kind = ""
    found: dict[str, _Steps] = {}
    for where, row in read_rows(path):
        if not first:
            first, features = list(row), _features(where, row, columns, new)
            if gaps == "fill":
                need(where, row, columns.time, advice="It says where a step is missing.")
        _check_columns(where, row, first, columns.series)
        steps = found.setdefault(
            str(row[columns.series]) if columns.series in first else "", _Steps()
        )
        if columns.time in first:
            moment, now = _moment(where, columns.time, row.get(columns.time))
            kind = kind or now
            if now != kind:
                raise DataError(f"{where}: {columns.time} is {now}, expected {kind}, as before.")
            _go_on(where, steps, moment, kind, str(row[columns.time]), gaps)
        steps.times.append(str(row.get(columns.time, f"step {len(steps.values)}")))
        steps.values.append([_value(where, name, row.get(name), missing) for name in features])
    if gaps == "fill":
        found = {name: _complete(path, steps, kind) for name, steps in found.items()}
    return _series(path, features, found, missing)


def _features(where: str, row: dict[str, Any], columns: Columns, new: bool) -> list[str]:
    """The columns of the first row that are features."""
    renamed = {columns.time, columns.series} - {TIME, SERIES}
    need(where, row, *sorted(renamed))
    if not new:
        advice = "dataset.leave_out names columns that are no features."
        need(where, row, *columns.leave_out, advice=advice)
    features = [name for name in row if name not in columns.all]
    if not features:
        raise DataError(
            f"{where}: got the columns {', '.join(row)}, expected one or more of numbers."
        )
    return features


def _check_columns(where: str, row: dict[str, Any], first: list[str], series: str) -> None:
    odd = next((name for name in row if name not in first), None)
    if odd is not None:
        raise DataError(
            f"{where}: got a column {odd}, expected {', '.join(first)}, as in the first row."
        )
    if series in first and row.get(series) in (None, ""):
        raise DataError(f"{where}: column {series} is missing, expected a name in every row.")


def _value(where: str, column: str, cell: Any, missing: str) -> float:
    """A cell's number; NaN where none is, and may be."""
    if not is_missing(cell):
        try:
            return number(where, column, cell)
        except DataError as error:
            raise DataError(
                f"{error}\n"
                f"  A column that says when each step was: dataset.time={column}; of which series "
                f"it is: dataset.series={column}; that is no feature: dataset.leave_out=[{column}]."
            ) from None
    if missing == "error":
        raise DataError(
            f"{where}: column {column} is {shown(cell)}, expected a number.\n"
            "  dataset.missing=forward keeps the last value, dataset.missing=linear draws a line."
        )
    return math.nan


def _moment(where: str, column: str, cell: Any) -> tuple[float, str]:
    """When a step was, in seconds or what its numbers count, and what kind of time that is."""
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


def _go_on(where: str, steps: _Steps, moment: float, kind: str, now: str, gaps: str) -> None:
    """Check that time goes on, and evenly, and take the step."""
    moments, before = steps.moments, steps.times[-1] if steps.times else None
    moments.append(moment)
    if before is None:
        return
    length = moment - moments[-2]
    if length == 0:
        raise DataError(f"{where}: got time {now} twice, expected each once.\n{_APART}")
    if length < 0:
        raise DataError(
            f"{where}: got time {now} after {before}, expected a later one.\n"
            f"  Sort the file by time.\n{_APART}"
        )
    step = moments[1] - moments[0]
    if gaps == "error" and abs(length - step) > _rounding(step, moment):
        raise DataError(
            f"{where}: got time {now} after {before}, a step of {_span(length, kind)}, expected "
            f"{_span(step, kind)} as the first step is.\n"
            "  dataset.time_gaps=fill puts in the steps that are missing, dataset.time_gaps=ignore "
            "takes all as equal."
        )


_FILLED = 100  # times as many steps as a file has: more, and a clock was wrong


def _rounding(step: float, moment: float) -> float:
    """By how much steps may differ: times may be decimals, of 10 Hz in seconds since 1970."""
    return 1e-6 * step + 4 * math.ulp(moment)


def _span(length: float, kind: str) -> str:
    return f"{length:g}" if kind == _NUMBER else str(timedelta(seconds=length))


def _complete(path: Path, steps: _Steps, kind: str) -> _Steps:
    """Put in the steps that are missing between others; the shortest is one step."""
    moments, lengths = steps.moments, np.diff(steps.moments)
    if not len(lengths):
        return steps
    step = float(lengths.min())
    counts = np.rint(lengths / step)
    odd = np.abs(lengths - counts * step) > _rounding(step, moments[-1]) * counts
    if odd.any():
        place = int(odd.argmax())
        raise DataError(
            f"{path}: got time {steps.times[place + 1]} after {steps.times[place]}, a step of "
            f"{_span(float(lengths[place]), kind)}, expected a multiple of the shortest, "
            f"{_span(step, kind)} before {steps.times[int(lengths.argmin()) + 1]}.\n"
            "  Correct the one that is wrong, or take all as equal: dataset.time_gaps=ignore."
        )
    places = np.concatenate([[0], counts.cumsum()]).astype(int)
    if places[-1] >= _FILLED * len(moments):
        place = int(counts.argmax())
        raise DataError(
            f"{path}: {counted(len(moments), 'row')} would become {places[-1] + 1:,} steps of "
            f"{_span(step, kind)}, expected no more than {_FILLED} times as many.\n"
            f"  The longest gap is that after {steps.times[place]}. Correct times that are wrong, "
            "or take all steps as equal: dataset.time_gaps=ignore."
        )
    values = np.full((places[-1] + 1, len(steps.values[0])), np.nan)
    values[places] = steps.values
    times = [_time(moments[0] + step * place, kind) for place in range(len(values))]
    for place, given in zip(places.tolist(), steps.times, strict=True):
        times[place] = given
    return _Steps(values.tolist(), times)


def _time(moment: float, kind: str) -> str:
    """How the time of a step that is put in reads."""
    if kind == _NUMBER:
        return f"{moment:.15g}"
    when = datetime.fromtimestamp(moment, timezone.utc)
    return str(when if kind == _ZONED else when.replace(tzinfo=None))


def _series(path: Path, columns: list[str], found: dict[str, _Steps], missing: str) -> Series:
    """Put series behind each other, and fill in what is missing."""
    pieces = []
    for name, steps in found.items():
        values = np.array(steps.values)
        for column, series in zip(columns, values.T, strict=True):
            there = np.isfinite(series)
            if not there.any():
                raise DataError(
                    f"{path}: column {column} of {name or 'the series'} has no value, expected "
                    "some.\n  Leave the column or the series out of the file."
                )
        pieces.append(values)
    raw = np.concatenate(pieces)
    filled = np.concatenate([_filled(piece, missing) for piece in pieces])
    times = [moment for steps in found.values() for moment in steps.times]
    lengths = {name: len(steps.values) for name, steps in found.items()}
    return Series(columns, filled, np.isfinite(raw), times, lengths)


def _filled(values: np.ndarray, missing: str) -> np.ndarray:
    """Values of one series, (steps, I), with what ``missing`` puts where none is."""
    there, steps = np.isfinite(values), np.arange(len(values))
    if missing == "linear":
        columns = zip(values.T, there.T, strict=True)
        return np.stack([np.interp(steps, steps[t], v[t]) for v, t in columns], 1)
    last = np.maximum.accumulate(np.where(there, steps[:, None], -1))
    places = np.where(last < 0, there.argmax(0), last)
    filled: np.ndarray = np.take_along_axis(values, places, 0)
    return filled
