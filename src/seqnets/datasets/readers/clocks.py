"""The times of the steps of a user's sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seqnets.datasets.readers.cells import Row, is_missing, named, need, shown
from seqnets.datasets.readers.timestamps import CLOCK_ADVICE, may_be_set_back, parse_time
from seqnets.errors import DataError, counted


class Clock:
    """Reads when the steps of a file are: numbers or time stamps, which do not fall in a sequence.

    Args:
        column: The column of the times.

    Attributes:
        kind: What all of the times are, such as "a number"; None before the first.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.kind: str | None = None
        self._before: tuple[float, Any] | None = None

    def need(self, where: str, row: Row) -> None:
        """Raise DataError if a row has no column of times."""
        need(where, row, self.column, advice="dataset.time=COLUMN names another.")

    def begin(self) -> None:
        """Begin another sequence."""
        self._before = None

    def read(self, where: str, cell: Any) -> float:
        """The time of a sequence's next step, in seconds or as the number it is.

        Raises:
            DataError: The time is missing, is none, is of another kind, or falls.
        """
        name = named(self.column)
        if is_missing(cell):
            raise DataError(
                f"{where}: column {name} is {shown(cell)}, expected the time of the step.\n"
                "  Leave the step out if nobody knows when it was."
            )
        time, kind = parse_time(where, f"column {name}", cell)
        self.kind = self.kind or kind
        if kind != self.kind:
            raise DataError(f"{where}: column {name} is {kind}, expected {self.kind}, as before.")
        if self._before is not None and time < self._before[0]:
            advice = CLOCK_ADVICE if may_be_set_back(kind, time - self._before[0]) else ""
            raise DataError(
                f"{where}: column {name} is {shown(cell)} after {shown(self._before[1])}, expected "
                f"times that do not fall within a sequence.\n  Sort the steps by time.{advice}"
            )
        self._before = time, cell
        return time

    def beside(self, where: str, row: Row, steps: Sequence[Sequence[float]]) -> list[list[float]]:
        """A sequence's steps with their times, a list in one cell, as the last feature.

        Raises:
            DataError: The row has no list of so many times.
        """
        self.need(where, row)
        times = row[self.column]
        if not isinstance(times, list) or len(times) != len(steps):
            raise DataError(
                f"{where}: column {named(self.column)} is {shown(times)}, expected a list of "
                f"{counted(len(steps), 'time')}, one for each step."
            )
        self.begin()
        return [
            [*step, self.read(f"{where}, step {place}", time)]
            for place, (step, time) in enumerate(zip(steps, times, strict=True), start=1)
        ]

    def beside_array(self, where: str, steps: np.ndarray, times: np.ndarray) -> np.ndarray:
        """A sequence's steps, (T, I), with their times, (T,), as the last feature."""
        self.begin()
        for place, time in enumerate(times.tolist(), start=1):
            self.read(f"{where}, step {place}", time)
        return np.concatenate([steps, times[:, None]], 1, dtype=np.float64)
