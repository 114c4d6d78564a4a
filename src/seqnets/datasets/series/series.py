"""Long series of evenly spaced steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from seqnets.datasets.series.spacing import Months, times_after
from seqnets.errors import DataError


@dataclass(frozen=True)
class Series:
    """One or more series of evenly spaced steps, concatenated.

    Attributes:
        columns: Names of the features.
        values: All steps, (steps, I) float64, finite.
        observed: Which values were in the file, (steps, I); the others were imputed.
        times: Timestamp of each step, as text.
        lengths: Length of each series by name, "" for an unnamed one.
        given: Names of the features that are inputs only, never forecast.
        timed: Whether ``times`` are the file's; otherwise they number its rows.
        even: Whether the times of each series are known to be evenly spaced.
        coming: How many steps at the end of a series, by its name, have values only of features
            that are known ahead; none if it is absent.
    """

    columns: list[str]
    values: np.ndarray
    observed: np.ndarray
    times: list[str]
    lengths: dict[str, int]
    given: list[str] = field(default_factory=list)
    timed: bool = False
    even: bool = False
    coming: dict[str, int] = field(default_factory=dict)

    @property
    def starts(self) -> dict[str, int]:
        """The first step of each series."""
        ends = np.cumsum(list(self.lengths.values()))
        begins = ends - list(self.lengths.values())
        return dict(zip(self.lengths, begins.tolist(), strict=True))

    @property
    def times_by_series(self) -> list[list[str]]:
        """Timestamp of each step of each series."""
        found = self.starts.items()
        return [self.times[start : start + self.lengths[name]] for name, start in found]

    @property
    def months(self) -> Months | None:
        """The spacing of steps months apart, in all series alike; None if it is another."""
        if not self.timed or self.even:
            return None
        found = {Months.of(times) for times in self.times_by_series}
        return found.pop() if len(found) == 1 else None

    def ahead(self, count: int, months: Months | None) -> list[list[str]] | None:
        """The times of the steps after the past of each series; None if they are not known.

        Steps that are still to come are the first of them.

        Args:
            count: How many steps follow.
            months: The spacing of steps whose length varies, if it is known.
        """
        spaced = self.even or (months is not None and self.timed)
        months, found = None if self.even else months, []
        for name, times in zip(self.lengths, self.times_by_series, strict=True):
            coming = self.coming.get(name, 0)
            after: list[str] | None = []
            if coming < count:
                after = times_after(times, count - coming, months) if spaced else None
            if after is None:
                return None
            found.append([*times[len(times) - coming :], *after])
        return found

    def past(self) -> Series:
        """The series without the steps that are still to come."""
        if not any(self.coming.values()):
            return self
        counts = {name: self.lengths[name] - self.coming.get(name, 0) for name in self.lengths}
        kept = [start + step for name, start in self.starts.items() for step in range(counts[name])]
        return replace(
            self,
            values=self.values[kept],
            observed=self.observed[kept],
            times=[self.times[step] for step in kept],
            lengths=counts,
            coming={},
        )

    def going_on(self, ahead: Sequence[Sequence[str]]) -> Series:
        """The series, with steps still to come at these times of each; none may be to come yet."""
        values, observed, times = [], [], []
        for (name, start), coming in zip(self.starts.items(), ahead, strict=True):
            whole, longer = slice(start, start + self.lengths[name]), ((0, len(coming)), (0, 0))
            values.append(np.pad(self.values[whole], longer))
            observed.append(np.pad(self.observed[whole], longer))
            times += [*self.times[whole], *coming]
        counts = {name: len(coming) for name, coming in zip(self.lengths, ahead, strict=True)}
        return replace(
            self,
            values=np.concatenate(values),
            observed=np.concatenate(observed),
            times=times,
            lengths={name: steps + counts[name] for name, steps in self.lengths.items()},
            coming=counts,
        )

    def with_inputs(self, columns: Sequence[str], values: np.ndarray) -> Series:
        """The series with more features, (steps, columns), which are inputs only."""
        return replace(
            self,
            columns=[*self.columns, *columns],
            values=np.concatenate([self.values, values], 1),
            observed=np.concatenate([self.observed, np.ones(values.shape, bool)], 1),
            given=[*self.given, *columns],
        )

    def select(self, who: str, columns: Sequence[str]) -> Series:
        """The features with these names, in this order.

        Raises:
            DataError: A column does not exist.
        """
        absent = [name for name in columns if name not in self.columns]
        if absent:
            raise DataError(
                f"{who}: got the numeric columns {', '.join(self.columns)}, expected "
                f"{', '.join(absent)} too."
            )
        places = [self.columns.index(name) for name in columns]
        values, observed = self.values[:, places], self.observed[:, places]
        return replace(self, columns=list(columns), values=values, observed=observed)
