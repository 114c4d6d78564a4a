"""Columns of the calendar: which minute, hour, day or month a step is in."""

from __future__ import annotations

import math
from calendar import isleap, monthrange
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from seqnets.datasets.series.series import Series
from seqnets.datasets.series.spacing import moments_of
from seqnets.errors import DataError

UNITS: dict[str, Callable[[datetime], float]] = {
    "minute": lambda moment: moment.minute / 60,
    "hour": lambda moment: moment.hour / 24,
    "weekday": lambda moment: moment.weekday() / 7,
    "day": lambda moment: (moment.day - 1) / monthrange(moment.year, moment.month)[1],
    "day_of_year": lambda moment: (moment.timetuple().tm_yday - 1) / (365 + isleap(moment.year)),
    "month": lambda moment: (moment.month - 1) / 12,
}
"""How far a moment is through the hour, day, week, month or year that a unit counts in, in
[0, 1); by the name of the unit. Weeks begin on Monday."""


def calendar_columns(units: Sequence[str]) -> list[str]:
    """Names of the columns of some units: a sine and a cosine each."""
    return [f"{unit} {wave}" for unit in units for wave in ("sin", "cos")]


def add_calendar(path: Path, series: Series, units: Sequence[str]) -> Series:
    """The series of a file with the columns of some units, each in [-1, 1].

    Both waves have one period over what a unit counts in, so that its end is near its beginning.

    Raises:
        DataError: The times are not dates, or the file has a column of this name.
    """
    if not units:
        return series
    columns, moments = calendar_columns(units), moments_of(series.times)
    if not series.timed or not moments:
        given = f"times such as {series.times[0]}" if series.timed else "no column of times"
        raise DataError(
            f"{path}: got {given}, expected dates such as 2026-01-31 12:00.\n"
            f"  dataset.calendar=[{','.join(units)}] takes what it adds from the times of steps."
        )
    if both := [name for name in columns if name in series.columns]:
        raise DataError(
            f"{path}: got the column {both[0]}, expected another name.\n"
            "  dataset.calendar adds one of this name."
        )
    parts = np.array([[UNITS[unit](moment) for unit in units] for moment in moments])
    angles = 2 * math.pi * parts[..., None]
    waves = np.concatenate([np.sin(angles), np.cos(angles)], 2)
    return series.with_inputs(columns, waves.reshape(len(moments), -1))
