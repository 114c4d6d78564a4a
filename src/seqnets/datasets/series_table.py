"""Series of a user's own, from one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_choice, check_fractions, is_number
from seqnets.datasets.base import Part
from seqnets.datasets.files import parse_number
from seqnets.datasets.readers import is_missing, number, read_rows, shown
from seqnets.datasets.series import Series, SeriesData
from seqnets.errors import DataError

TIME, SERIES = "time", "series"

MISSING = ("error", "forward", "linear")
GAPS = ("error", "ignore")

_NUMBER = "a number"


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
        validation_fraction: Share of each series' steps to choose by.
        test_fraction: Share of each series' steps to report, its last.
        missing: "error"; "forward", where the last value stays (and the first one stands for what
            is missing before it); or "linear", a line to the next value, which looks into the
            future: a window that ends in a gap gives what it could not know. Values that are
            missing are never scored.
        mask: Whether a 0/1 column beside each feature says what was there. It is given and never
            told; a model that takes the targets one by one does not see it.
        time_gaps: "error" unless all steps of a series are as long as its first; or "ignore", for
            months, or working days.
        **data: The arguments of :class:`SeriesData`.
    """

    def __init__(
        self,
        path: str,
        *,
        time: str = TIME,
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
        self.path, self.time, self.missing, self.mask = path, time, missing, mask
        self.time_gaps = time_gaps
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
        series = read_series(path, self.time, self.missing, self.time_gaps)
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


@dataclass
class _Steps:
    """The steps of one series, as they are read."""

    values: list[list[float]] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    moment: float = -math.inf
    step: float | None = None


def read_series(
    path: Path, time: str = TIME, missing: str = "error", gaps: str = "error"
) -> Series:
    """Read the series of a table; :class:`SeriesTable` says which columns it has.

    Args:
        path: The file.
        time: The column that says when each step was.
        missing: What is put where no value is: see :class:`SeriesTable`.
        gaps: Whether steps of different lengths are an "error", or to "ignore".

    Raises:
        DataError: The file is missing or malformed; says in which line.
    """
    first: list[str] = []
    kinds: dict[str, str] = {}
    found: dict[str, _Steps] = {}
    for where, row in read_rows(path):
        first = first or _columns(where, row, time)
        _check_columns(where, row, first)
        steps = found.setdefault(str(row[SERIES]) if SERIES in first else "", _Steps())
        if time in first:
            moment, kind = _moment(where, time, row.get(time))
            if kind != kinds.setdefault(time, kind):
                raise DataError(f"{where}: {time} is {kind}, expected {kinds[time]}, as before.")
            _go_on(where, steps, moment, kind, str(row[time]), gaps)
        steps.times.append(str(row.get(time, f"step {len(steps.values)}")))
        columns = (name for name in first if name not in (time, SERIES))
        steps.values.append([_value(where, name, row.get(name), missing) for name in columns])
    return _series(path, [name for name in first if name not in (time, SERIES)], found, missing)


def _columns(where: str, row: dict[str, Any], time: str) -> list[str]:
    """The columns of the first row."""
    if time not in (TIME, *row):
        raise DataError(f"{where}: the columns {', '.join(row)} came, expected {time} too.")
    if not row.keys() - {time, SERIES}:
        raise DataError(
            f"{where}: the columns {', '.join(row)} came, expected one or more of numbers."
        )
    return list(row)


def _check_columns(where: str, row: dict[str, Any], first: list[str]) -> None:
    odd = next((name for name in row if name not in first), None)
    if odd is not None:
        raise DataError(
            f"{where}: a column {odd} came, expected {', '.join(first)}, as in the first row."
        )
    if SERIES in first and row.get(SERIES) in (None, ""):
        raise DataError(f"{where}: column {SERIES} is missing, expected a name in every row.")


def _value(where: str, column: str, cell: Any, missing: str) -> float:
    """A cell's number; NaN where none is, and may be."""
    if not is_missing(cell):
        try:
            return number(where, column, cell)
        except DataError as error:
            raise DataError(
                f"{error}\n  A column that says when each step was: dataset.time={column}."
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
        return moment.replace(tzinfo=timezone.utc).timestamp(), "a time without a zone"
    return moment.timestamp(), "a time with a zone"


def _go_on(where: str, steps: _Steps, moment: float, kind: str, now: str, gaps: str) -> None:
    """Check that time goes on, and evenly, and take the step."""
    length, before = moment - steps.moment, steps.times[-1] if steps.times else None
    if length == 0:
        raise DataError(
            f"{where}: time {now} came twice, expected each once.\n"
            "  A column `series` tells several series apart."
        )
    if length < 0:
        raise DataError(
            f"{where}: time {now} came after {before}, expected a later one.\n"
            "  Sort the file by time; a column `series` tells several series apart."
        )
    if before is not None:
        steps.step = steps.step or length
        rounding = 1e-6 * steps.step + 4 * math.ulp(moment)  # of 10 Hz in seconds since 1970
        if gaps == "error" and abs(length - steps.step) > rounding:
            came, expected = (
                f"{span:g}" if kind == _NUMBER else str(timedelta(seconds=span))
                for span in (length, steps.step)
            )
            raise DataError(
                f"{where}: time {now} came after {before}, a step of {came}, expected {expected} "
                "as the first step is.\n"
                "  Put in the rows that are missing (empty cells, and dataset.missing), or take "
                "the steps as equal: dataset.time_gaps=ignore."
            )
    steps.moment = moment


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
