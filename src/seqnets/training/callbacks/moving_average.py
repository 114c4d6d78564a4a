"""An exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from seqnets.checks import check_probability


class MovingAverage(WeightAveraging):
    """Keep an exponential moving average of the weights; it is validated, kept and tested.

    Of the first steps it is nearly the mean, ``(1 + n) / (10 + n)`` being the decay of average n
    until that exceeds ``decay``: the weights from which a run begins would otherwise outweigh all
    others for a thousand steps.

    Args:
        decay: Share of the average that stays at a step.
        **options: Options of Lightning's ``WeightAveraging``, such as ``device``.

    Raises:
        ConfigError: ``decay`` is outside [0, 1).
    """

    def __init__(self, decay: float = 0.999, **options: Any) -> None:
        check_probability(type(self).__name__, decay=decay)
        self.decay = decay
        super().__init__(use_buffers=False, avg_fn=self._average, **options)

    def _average(self, average: Tensor, weight: Tensor, count: Tensor) -> Tensor:
        """Move an average towards a weight; ``count`` is how many averages there were, from 1."""
        kept = ((1 + count) / (10 + count)).clamp(max=self.decay)
        return average.lerp(weight, (1 - kept).to(weight.dtype))
