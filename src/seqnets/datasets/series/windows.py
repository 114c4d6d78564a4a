"""Windows of long series: input steps and the steps to forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqnets.typing import Batch


@dataclass(frozen=True)
class Windows:
    """Windows of one or more series, extracted lazily without copying the series.

    Attributes:
        x: Features of every step of all series, concatenated, (steps, I) float32.
        y: Target values of every step, (steps, K) float32; NaN where unknown.
        starts: The first step of each window, (N,) int64.
        lookback: Input steps of a window.
        horizon: Steps to forecast after them.
        ids: Series name of each window; None if there is only one series.
        texts: Timestamp of each window's last input step, as "after"; of its steps to forecast,
            as "time", if they are known.
        ahead: How many features, the last ones, are known ahead, A.
        scales: What scaled errors of each window's targets are divided by, (N, K) float32.
    """

    x: Tensor
    y: Tensor
    starts: Tensor
    lookback: int
    horizon: int
    ids: list[Any] | None = None
    texts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ahead: int = 0
    scales: Tensor | None = None

    ragged = False
    """Whether the lengths differ."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Tensor:
        """Input steps of each window, (N,) int64."""
        return torch.full_like(self.starts, self.lookback)

    @property
    def scored(self) -> bool:
        """Whether any target value is known."""
        first = self.starts + self.lookback
        return any(bool(self.y[first + step].isfinite().any()) for step in range(self.horizon))

    def batch(self, rows: Tensor) -> Batch:
        """Windows by index, (B,): x (B, lookback, I) and y (B, horizon, K).

        Features that are known ahead are in x, and over the horizon in ``ahead``, (B, horizon, A).
        """
        steps = self.starts[rows, None] + torch.arange(self.lookback + self.horizon)
        past, coming = steps[:, : self.lookback], steps[:, self.lookback :]
        ahead = self.x[:, -self.ahead :][coming] if self.ahead else None
        scales = None if self.scales is None else self.scales[rows]
        return Batch(self.x[past], self.y[coming], ahead=ahead, scales=scales)


class Spans(Sequence[list[str]]):
    """Timestamps of the steps to forecast of each window, looked up when they are asked for.

    Args:
        times: Timestamp of every step.
        firsts: The first step to forecast of each window, (N,) int64.
        horizon: Steps to forecast.
    """

    def __init__(self, times: Sequence[str], firsts: Tensor, horizon: int) -> None:
        self.times, self.firsts, self.horizon = times, firsts, horizon

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, window: Any) -> Any:
        first = int(self.firsts[window])
        return list(self.times[first : first + self.horizon])


def window_starts(first: int, end: int, lookback: int, horizon: int) -> Tensor:
    """The starts of all windows whose horizon lies in ``first`` to ``end - 1``, (N,).

    Their input steps may lie before ``first``, but not before step 0.
    """
    low = max(0, first - lookback)
    return torch.arange(low, max(low, end - lookback - horizon + 1))
