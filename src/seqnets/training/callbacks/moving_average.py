"""An exponential moving average of the weights."""

from __future__ import annotations

from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from seqnets.checks import check_count, check_probability


class MovingAverage(EMAWeightAveraging):
    """Keep an exponential moving average of the weights; it is validated, kept and tested.

    Of the first steps it is nearly the mean, ``(1 + n) / (10 + n)`` being the decay of average n
    until that exceeds ``decay``: the weights from which a run begins would otherwise outweigh all
    others for a thousand steps.

    Args:
        decay: Share of the average that stays at a step.
        device: Where the average is kept; where the model is if omitted.
        update_every_n_steps: Steps from one average to the next.
        update_starting_at_step: First step, from 0, that is averaged; all are if omitted.
        update_starting_at_epoch: First epoch, from 0, at whose end there is one more average; none
            if omitted.

    Raises:
        ConfigError: ``decay`` is outside [0, 1), or another number is out of its range.
    """

    def __init__(
        self,
        decay: float = 0.999,
        device: str | None = None,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
    ) -> None:
        who = type(self).__name__
        check_probability(who, decay=decay)
        check_count(who, update_every_n_steps=update_every_n_steps)
        starts = {
            "update_starting_at_step": update_starting_at_step,
            "update_starting_at_epoch": update_starting_at_epoch,
        }
        check_count(who, least=0, **{name: n for name, n in starts.items() if n is not None})
        self.decay = decay
        super().__init__(
            device,
            use_buffers=False,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
            update_starting_at_epoch=update_starting_at_epoch,
        )
        self._kwargs["avg_fn"] = self._average  # in place of one with a constant decay

    def _average(self, average: Tensor, weight: Tensor, count: Tensor) -> Tensor:
        """Move an average towards a weight; ``count`` is how many averages there were, from 1."""
        kept = ((1 + count) / (10 + count)).clamp(max=self.decay)
        return average.lerp(weight, (1 - kept).to(weight.dtype))
