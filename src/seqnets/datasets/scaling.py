"""Standardisation to mean 0 and deviation 1, and its inverse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """Shifts and scales columns so that the fitted data have mean 0 and deviation 1.

    Attributes:
        mean: Mean of each column, (I,) float64.
        deviation: Standard deviation of each column, (I,) float64; 1 for a constant one.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Scaling:
        """Fit to columns, (N, I); NaN is ignored, and an all-NaN column gives NaN.

        A column whose deviation is no more than rounding leaves is constant.
        """
        mean = values.double().nanmean(0)
        deviation = (values.double() - mean).square().nanmean(0).sqrt()
        rounding = max(1e-12, torch.finfo(values.dtype).eps) * mean.abs()
        return cls(mean, torch.where(deviation <= rounding, 1.0, deviation))

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Scaling:
        """Restore a scaling from the result of :meth:`plain`."""
        return cls(
            *(torch.tensor(plain[name], dtype=torch.float64) for name in ("mean", "deviation"))
        )

    def plain(self) -> dict[str, list[float]]:
        """Plain values, for a checkpoint."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @property
    def places(self) -> list[int]:
        """The decimal places of each column's original units that float32 resolves, (I,).

        Values some four deviations from the mean are meant. Below 0 where digits before the point
        are lost.
        """
        return [6 - math.floor(math.log10(4 * unit)) for unit in self.deviation.tolist()]

    def __call__(self, values: Tensor) -> Tensor:
        """Scale columns, (..., I), to float32."""
        return ((values - self.mean) / self.deviation).float()

    def shown(self, values: Tensor) -> list[float]:
        """Scaled columns, (I,), in original units, rounded to float32 precision."""
        own = zip(self.undo(values).tolist(), self.places, strict=True)
        return [round(value, places) + 0.0 for value, places in own]  # avoids -0.0

    def undo(self, values: Tensor) -> Tensor:
        """Convert scaled columns, (..., I), back to original units, as float64."""
        return values.double() * self.deviation + self.mean
