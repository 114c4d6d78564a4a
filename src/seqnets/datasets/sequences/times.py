"""The times of steps, as cells read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from seqnets.checks import check_flags, check_number
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError, DataError
from seqnets.typing import Known


@dataclass(frozen=True)
class Timing:
    """What a user asks of the times of steps.

    Attributes:
        column: The column of the times.
        unit: Their unit, in seconds or in that of the numbers; None for the mean time between steps
            of the training part.
        stamps: Whether a cell reads the time since the first step of a sequence, rather than the
            time elapsed since the step before.
    """

    column: str
    unit: float | None
    stamps: bool

    @classmethod
    def given(cls, who: str, time: str | None, unit: float | None, stamps: bool) -> Timing | None:
        """What the options of a dataset say; None if steps have no times.

        Raises:
            ConfigError: An option is out of range, or needs a column of times.
        """
        check_flags(who, time_stamps=stamps)
        if unit is not None:
            check_number(who, above=0, time_unit=unit)
        if time is not None:
            return cls(time, unit, stamps)
        if unit is not None or stamps:
            key = "time_stamps" if stamps else "time_unit"
            raise ConfigError(
                f"{who}: {key} is {stamps or unit}, and time is None, expected the column of the "
                "times."
            )
        return None

    def learn(self, who: str, kind: str, x: Tensor, lengths: Tensor) -> Times:
        """The conversion of times, fitted to the training part.

        Args:
            who: The file, for messages.
            kind: What times are in files, such as "a number".
            x: All steps, (steps, I), of which the last feature is the time.
            lengths: Length of each sequence, (N,).

        Raises:
            DataError: No time passes between any two steps.
        """
        since = Times(self.column, kind, True, 0.0)(x, lengths)[lengths.cumsum(0) - 1, -1]
        mean = float(since.sum()) / max(1, len(x) - len(lengths))
        if not mean:
            raise DataError(
                f"{who}: no time passes within the sequences of the training part, expected "
                f"different times in column {self.column}."
            )
        return Times(self.column, kind, self.stamps, mean)

    def scaling(self, of_features: Scaling, times: Times, standardise: bool = True) -> Scaling:
        """The scaling of all features, by which the last one is in units of time."""
        mean, deviation = of_features.mean.clone(), of_features.deviation.clone()
        if not standardise:
            mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
        mean[-1], deviation[-1] = 0, self.unit or times.mean
        return Scaling(mean, deviation)


@dataclass(frozen=True)
class Times:
    """Makes the times that a cell reads of those in a file.

    Attributes:
        column: The column of the times.
        kind: What they are there, such as "a number".
        stamps: Whether a cell reads the time since the first step of a sequence, rather than the
            time elapsed since the step before.
        mean: The mean time elapsed in the training part, which is that of each first step too.
    """

    column: str
    kind: str
    stamps: bool
    mean: float

    @classmethod
    def known(cls, known: Known) -> Times | None:
        """Restore them from the description of a dataset; None if its steps have no times."""
        plain: Mapping[str, Any] | None = known.get("time")
        return None if plain is None else cls(**plain)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {"time": asdict(self)}

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Concatenated sequences, (steps, I), of which the last feature is what cells read.

        Args:
            x: The sequences, of which the last feature is the time, float64.
            lengths: Length of each sequence, (N,).
        """
        starts, times = lengths.cumsum(0) - lengths, x[:, -1]
        if self.stamps:
            made = times - times[starts].repeat_interleave(lengths)
        else:
            made = times.diff(prepend=times[:1])
            made[starts] = self.mean
        return torch.cat([x[:, :-1], made[:, None]], 1)

    def of_batch(self, x: Tensor) -> Tensor:
        """Padded sequences, (B, T, I), likewise; times after their ends are any.

        Only by operations that an exported model may have: for any number of rows and steps.
        """
        times = x[..., -1:]
        if self.stamps:
            made = times - times[:, :1]
        else:
            elapsed = times[:, 1:] - times[:, :-1]
            made = torch.cat([torch.full_like(times[:, :1], self.mean), elapsed], 1)
        return torch.cat([x[..., :-1], made.clamp(min=0)], -1)

    def undo(self, x: Tensor) -> Tensor:
        """Padded sequences, (B, T, I), with times of which :meth:`of_batch` makes theirs."""
        times = x[..., -1:]
        return x if self.stamps else torch.cat([x[..., :-1], times.cumsum(1)], -1)
