"""An exponential moving average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from seqnets.checks import check_count, check_probability
from seqnets.typing import HALF


class MovingAverage(WeightAveraging):
    """Keep an exponential moving average of the weights; it is validated, kept and tested.

    Before the first average these are the weights themselves.

    Over the first steps it is nearly the mean: the decay of average n is ``(1 + n) / (10 + n)``
    until that exceeds ``decay``. Otherwise the weights with which a run begins would outweigh all
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
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch
        self._unrounded: list[tuple[Tensor, Tensor]] = []  # of averages, in a validation
        super().__init__(device, use_buffers=False)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether there is one more average after a step, or after an epoch."""
        if step_idx is not None:
            first = self.update_starting_at_step or 0
            return step_idx >= first and step_idx % self.update_every_n_steps == 0
        first_epoch = self.update_starting_at_epoch
        return None not in (epoch_idx, first_epoch) and epoch_idx >= first_epoch  # type: ignore[operator]

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Make the average, in float32 at least, before the weights have their precision."""
        if stage != "fit":
            return
        self._average_model = _Average(pl_module, self.decay)
        if trainer.precision == "64-true":
            self._average_model.module.double()
        for average in self._average_model.module.parameters():
            if average.dtype in HALF:
                average.data = average.data.float()

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Move the average to its device, where the model is only by now."""
        if self._average_model is not None:
            self._average_model.module.to(self._device or pl_module.device)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Switch to the average, and keep what weights of fewer digits would round."""
        self._follow(pl_module)
        if self._average_model is not None:
            averages = self._average_model.module.parameters()
            pairs = zip(averages, pl_module.parameters(), strict=True)
            finer = [mean.data for mean, weight in pairs if mean.dtype != weight.dtype]
            self._unrounded = [(mean, mean.clone()) for mean in finer]
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Switch back to the weights."""
        super().on_validation_epoch_end(trainer, pl_module)
        for average, unrounded in self._unrounded:
            average.copy_(unrounded)
        self._unrounded = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Save the average as the weights, and these beside it."""
        self._follow(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Leave the average in the model."""
        self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """The same for a run with nothing left to train, and after an optimizer that averages."""
        if stage == "fit":
            self.on_train_end(trainer, pl_module)

    def _follow(self, pl_module: Any) -> None:
        """Have the weights stand for their average while there is none.

        Lightning would take the weights with which the run began.
        """
        average = self._average_model
        if average is not None and not average.n_averaged:
            average.module.load_state_dict(pl_module.state_dict())


class _Average(AveragedModel):
    """A copy of a model with averages of its weights.

    How many there were is counted on the CPU, so that no step waits for a device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the averages towards the weights; the first are the weights themselves."""
        count = int(self.n_averaged)
        kept = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        pairs = zip(self.module.parameters(), model.parameters(), strict=True)
        averages, weights = zip(*((mean, weight.to(mean)) for mean, weight in pairs), strict=True)
        torch._foreach_lerp_(averages, weights, 1 - kept)
        for mine, other in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(other)
        self.n_averaged += 1
