"""Series of a new file: the windows that a trained model forecasts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqnets.datasets.scaling import Scaling
from seqnets.datasets.series.calendar import add_calendar, calendar_columns
from seqnets.datasets.series.series import Series
from seqnets.datasets.series.spacing import Months
from seqnets.datasets.series.windows import Windows
from seqnets.errors import DataError, counted
from seqnets.typing import Known


@dataclass(frozen=True)
class NewSeries:
    """The series of a new file, after whose ends a trained model forecasts.

    Attributes:
        path: The file.
        given: Its series, as they were read.
        known: What the model knows of its data: ``describe()`` of the dataset.
        known_ahead: Columns whose values at the steps to forecast are known.
        calendar: Units of the calendar, whose columns are known ahead by the times of these steps.
    """

    path: Path
    given: Series
    known: Known
    known_ahead: Sequence[str]
    calendar: Sequence[str]

    def windows(self) -> Windows:
        """The last window of each series; the targets are NaN.

        Raises:
            DataError: The file is too short, or lacks a column, or values or times that are known
                ahead; the message says which.
        """
        lookback, sizes, series = self.known["lookback"], self.known["sizes"], self._series()
        ends = [
            start + series.lengths[name] - series.coming.get(name, 0)
            for name, start in series.starts.items()
        ]
        if self._ahead:
            for name, end in zip(series.lengths, ends, strict=True):
                self._check_ahead(series, name, end)
        x = Scaling.read(self.known["scaling"])(torch.from_numpy(series.values))
        y = torch.full((len(x) + self._horizon, sizes["output_size"]), torch.nan)
        starts = torch.tensor(ends) - lookback
        ids = None if "" in series.lengths else [*series.lengths]
        texts: dict[str, Sequence[Any]] = {"after": [series.times[end - 1] for end in ends]}
        times = self._times_ahead(series, ends)
        if times is not None:
            texts["time"] = times
        return Windows(x, y, starts, lookback, self._horizon, ids, texts, self._ahead)

    @property
    def _horizon(self) -> int:
        return self.known["sizes"]["horizon"]

    @property
    def _ahead(self) -> int:
        """How many columns are known ahead, those of the calendar included."""
        return self.known["sizes"].get("ahead_size", 0)

    @property
    def _months(self) -> Months | None:
        """The spacing of the steps that the model was trained on, if these are months apart."""
        months = self.known.get("months")
        return None if months is None else Months(**months)

    def _series(self) -> Series:
        """The series with the columns that the model knows."""
        from_times = calendar_columns(self.calendar)
        own = [name for name in self.known["columns"] if name not in from_times]
        series, lookback = self.given.select(str(self.path), own), self.known["lookback"]
        for name, steps in series.past().lengths.items():
            if steps < lookback:
                raise DataError(
                    f"{self.path}: got {counted(steps, 'step')} of {name or 'the series'}, "
                    f"expected at least {lookback}, the model's lookback."
                )
        if self.calendar and not self.known_ahead:
            series = self._going_on(series)
        series = add_calendar(self.path, series, self.calendar)
        return series.select(str(self.path), self.known["columns"])

    def _going_on(self, series: Series) -> Series:
        """The series with the steps to forecast, of which only times are known."""
        past = series.past()
        if not past.timed:
            return past  # which the calendar refuses
        ahead = series.ahead(self._horizon, self._months)
        if ahead is None:
            coming = series.coming
            name = next(name for name in past.lengths if coming.get(name, 0) < self._horizon)
            last = past.times[past.starts[name] + past.lengths[name] - 1]
            raise DataError(
                f"{self.path}: got no times of the {counted(self._horizon, 'step')} of "
                f"{name or 'the series'} after {last}, expected them, or times whose spacing says "
                "how they continue.\n"
                f"  dataset.calendar=[{','.join(self.calendar)}] needs them. Add a row for each "
                "step to forecast, in which only the time has a value."
            )
        return past.going_on(ahead)

    def _times_ahead(self, series: Series, ends: Sequence[int]) -> list[list[str]] | None:
        """The times of the steps to forecast after the past of each series, if they are known."""
        if self._ahead:  # the series continues over them
            spans = [series.times[end : end + self._horizon] for end in ends]
            return spans if series.timed else None
        return series.ahead(self._horizon, self._months)

    def _check_ahead(self, series: Series, name: str, end: int) -> None:
        """Raise DataError if values that are known ahead are missing in the steps after ``end``."""
        whose, horizon = name or "the series", self._horizon
        columns = [column for column in self.known_ahead if column in self.known["columns"]]
        if (found := series.coming.get(name, 0)) < horizon:
            raise DataError(
                f"{self.path}: got {counted(found, 'step')} of {whose} after "
                f"{series.times[end - 1]}, expected {horizon}, the model's horizon.\n"
                f"  Known ahead (dataset.known_ahead): {', '.join(columns)}. Add a row for each "
                "step to forecast, in which only these have values."
            )
        places = [series.columns.index(column) for column in columns]
        gaps = ~series.observed[end : end + horizon, places]
        if gaps.any():
            step, column = np.argwhere(gaps)[0].tolist()
            raise DataError(
                f"{self.path}: column {columns[column]} of {whose} has no value at "
                f"{series.times[end + step]}, expected one: it is known ahead "
                "(dataset.known_ahead).\n"
                "  A gap there is not filled in: that would be a guess of what comes."
            )
