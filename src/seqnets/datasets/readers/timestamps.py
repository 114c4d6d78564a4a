"""Timestamps of the steps of a series: reading them, and how even they are."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import is_number
from seqnets.datasets.readers.cells import parse_number, shown
from seqnets.errors import DataError, counted

_NUMBER, _BARE, _ZONED = "a number", "a time without a zone", "a time with a zone"

_ISO = re.compile(
    r"(\d{4})(-?)(?:(\d\d)\2(\d\d)|W(\d\d)(?:\2(\d))?)"
    r"(?:.(\d\d)(?:(:?)(\d\d)(?:\8(\d\d)(?:[.,](\d+))?)?)?(?:([+-])(\d\d)(?::?(\d\d))?)?)?",
    re.ASCII,
)
"""A date, or a week and its day; then a time, fractions of its seconds, and its offset."""

_MAX_FILL = 100
"""Maximum ratio of steps after filling to steps in the file: more indicates a wrong timestamp."""

_SERIES_ADVICE = "  If the file has several series, name the column: dataset.series=COLUMN."
_HOUR = 3600
CLOCK_ADVICE = (
    "\n  If clocks were set back there, give times with their offset: 2026-10-25 02:00+01:00."
)


@dataclass
class Steps:
    """The steps of one series, in file order.

    Attributes:
        values: Features of each step, NaN where missing.
        times: Timestamp of each step, as text.
        seconds: Timestamp of each step, in seconds or the units of a numeric column.
    """

    values: list[list[float]] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def parse_time(where: str, column: str, cell: Any) -> tuple[float, str]:
    """A timestamp, in seconds or as the number it is, and the kind of timestamp.

    Raises:
        DataError: The cell is no timestamp.
    """
    if is_number(cell) and math.isfinite(cell):
        return float(cell), _NUMBER
    if isinstance(cell, str) and math.isfinite(value := parse_number(cell)):
        return value, _NUMBER
    moment = moment_of(cell) if isinstance(cell, str) else cell
    if isinstance(cell, date) and not isinstance(cell, datetime):
        moment = datetime.combine(cell, time())
    if not isinstance(moment, datetime):
        raise DataError(
            f"{where}: {column} is {shown(cell)}, expected a time such as 2026-01-31 or "
            "2026-01-31 12:00:00, or a number."
        )
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc).timestamp(), _BARE
    return moment.timestamp(), _ZONED


def moment_of(text: str) -> datetime | None:
    """A timestamp in ISO 8601; None if the text is none."""
    text = text.strip().replace("Z", "+00:00")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None if sys.version_info >= (3, 11) else read_iso(text)


def read_iso(text: str) -> datetime | None:
    """What Python 3.11 reads as ISO 8601 and 3.10 does not: ``20260131T120000.5+0100``."""
    if not (found := _ISO.fullmatch(text)):
        return None
    year, _, month, day, week, weekday, hour, _, minute, second, rest, sign, *to_utc = (
        found.groups()
    )
    hours, minutes = (int(part or 0) for part in to_utc)
    offset = timedelta(hours=hours, minutes=minutes)
    try:
        if week:
            on = date.fromisocalendar(int(year), int(week), int(weekday or 1))
        else:
            on = date(int(year), int(month), int(day))
        at = time(int(hour or 0), int(minute or 0), int(second or 0), int(f"{rest or 0:0<6}"[:6]))
        zone = timezone(-offset if sign == "-" else offset) if sign else None
    except ValueError:
        return None
    return datetime.combine(on, at, zone)


def may_be_set_back(kind: str, length: float) -> bool:
    """Whether clocks that are set back may give such a step between two times of a kind."""
    return kind == _BARE and -_HOUR <= length <= 0


def add_time(where: str, steps: Steps, seconds: float, kind: str, time: str, gaps: str) -> None:
    """Append a timestamp, after checking that time increases, and evenly unless that may vary.

    Raises:
        DataError: It is not later than the one before, or by another step than the first.
    """
    before = steps.times[-1] if steps.times else None
    steps.seconds.append(seconds)
    if before is None:
        return
    length = seconds - steps.seconds[-2]
    advice = _SERIES_ADVICE
    if may_be_set_back(kind, length) and 0 < steps.seconds[1] - steps.seconds[0] <= _HOUR:
        advice += CLOCK_ADVICE
    if length == 0:
        raise DataError(f"{where}: got time {time} twice, expected each once.\n{advice}")
    if length < 0:
        raise DataError(
            f"{where}: got time {time} after {before}, expected a later one.\n"
            f"  Sort the file by time.\n{advice}"
        )
    step = steps.seconds[1] - steps.seconds[0]
    if gaps == "error" and abs(length - step) > _tolerance(step, seconds):
        advice = (
            "dataset.time_gaps=fill with dataset.missing=forward or linear inserts the missing "
            "steps, dataset.time_gaps=ignore treats all steps as equal."
        )
        if kind == _NUMBER and (day := moment_of(time)) is not None:
            advice = f"It is read as a number. If it is a date, write {day.date()}."
        raise DataError(
            f"{where}: got time {time} after {before}, a step of {_duration(length, kind)}, "
            f"expected {_duration(step, kind)}, the length of the first step.\n  {advice}"
        )


def _tolerance(step: float, seconds: float) -> float:
    """By how much steps may differ, as timestamps such as 0.1 s are not exact in binary."""
    return 1e-6 * step + 4 * math.ulp(seconds)


def _duration(length: float, kind: str) -> str:
    """The length of a step as text."""
    if kind == _NUMBER:
        return f"{length:g}"
    return str(timedelta(seconds=length)).removesuffix(", 0:00:00")  # of whole days


def insert_steps(path: Path, steps: Steps, kind: str) -> Steps:
    """Insert the missing steps of a series, whose shortest step is the sampling interval.

    Raises:
        DataError: A step is no multiple of the shortest, or far too many would be inserted.
    """
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
    in_file, times = dict(zip(indices.tolist(), steps.times, strict=True)), []
    before = steps.times[0]
    for index in range(len(values)):
        before = in_file.get(index, before)
        inserted = index not in in_file
        times.append(_format_time(seconds[0] + step * index, kind, before) if inserted else before)
    return Steps(values.tolist(), times)


def _format_time(seconds: float, kind: str, before: str) -> str:
    """The timestamp of an inserted step as text, with the offset of the step before."""
    if kind == _NUMBER:
        return f"{seconds:.15g}"
    moment = moment_of(before) if kind == _ZONED else None
    zone = timezone.utc if moment is None else moment.tzinfo
    when = datetime.fromtimestamp(seconds, zone)
    return str(when if kind == _ZONED else when.replace(tzinfo=None))
