"""Windows of long series: the steps that are known, and those that are to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqnets.typing import Batch


@dataclass(frozen=True)
class Windows:
    """Windows of one or more series, cut out when they are asked for; nothing is copied before.

    Attributes:
        x: Features of every step of all series behind each other, (steps, I) float32.
        y: Values to tell of every step, (steps, K) float32; NaN where none is known.
        starts: The first step of each window, (N,) int64.
        lookback: Steps of a window that are given.
        horizon: Steps after them that are to be told.
        ids: The series of each window; None where there is one alone.
        texts: When each window's last given step was, as "after".
    """

    x: Tensor
    y: Tensor
    starts: Tensor
    lookback: int
    horizon: int
    ids: list[Any] | None = None
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    ragged = False
    """Whether the lengths differ."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Tensor:
        """Steps that each window gives, (N,) int64."""
        return torch.full_like(self.starts, self.lookback)

    @property
    def size(self) -> Tensor:
        """By what similar windows are found, (N,): all are alike."""
        return self.lengths

    @property
    def scored(self) -> bool:
        """Whether any of the values to tell is known."""
        told = self.starts + self.lookback
        return any(bool(self.y[told + step].isfinite().any()) for step in range(self.horizon))

    def batch(self, rows: Tensor) -> Batch:
        """Return windows by their numbers, (B,): x (B, lookback, I) and y (B, horizon, K)."""
        steps = self.starts[rows, None] + torch.arange(self.lookback + self.horizon)
        return Batch(self.x[steps[:, : self.lookback]], self.y[steps[:, self.lookback :]])


def window_starts(first: int, end: int, lookback: int, horizon: int) -> Tensor:
    """Where windows begin whose horizon lies within the steps ``first`` to ``end - 1``, (N,).

    The steps that they give may lie before ``first``, but not before step 0.
    """
    low = max(0, first - lookback)
    return torch.arange(low, max(low, end - lookback - horizon + 1))
