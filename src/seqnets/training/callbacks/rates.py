"""Learning rates in proportion to the length of batches."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer

from seqnets.errors import ConfigError
from seqnets.training.trainers import data_of


class RateByLength(Callback):
    """Scale each step's learning rate by its batch's length.

    For text cut into chunks of random lengths (``dataset.chunk_spread``): the loss is a mean, so
    that otherwise tokens of short chunks would weigh more. A batch of the dataset's
    ``chunk_length`` uses the rate itself, which is also what schedules and checkpoints see. With
    gradient accumulation the mean length of the batches counts.

    Raises:
        ConfigError: At the start of training: the data have no ``chunk_length``.

    References:
        Merity et al., 2018, "Regularizing and Optimizing LSTM Language Models",
        arXiv:1708.02182, section 5.1.
    """

    def __init__(self) -> None:
        self._steps = self._batches = 0
        self._rates: list[float] = []  # the schedule's, while a step is taken

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Hook the optimizers, so that rates are scaled during their steps only."""
        data = data_of(trainer)
        if not hasattr(data, "chunk_length"):
            raise ConfigError(
                f"RateByLength: got {type(data).__name__}, expected data in chunks, with a "
                "chunk_length.\n  Leave this callback out."
            )
        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(lambda one, *_: self._scale(one, data.chunk_length))
            optimizer.register_step_post_hook(lambda one, *_: self._restore(one))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch's length."""
        self._steps += batch.x.shape[1]
        self._batches += 1

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore the rates after a failed step."""
        for optimizer in trainer.optimizers:
            self._restore(optimizer)

    def _scale(self, optimizer: Optimizer, usual: int) -> None:
        if not self._rates:  # hooks run twice if an optimizer's step calls its base's
            self._rates = [group["lr"] for group in optimizer.param_groups]
            length = self._steps / self._batches
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * (length / usual)
            self._steps = self._batches = 0

    def _restore(self, optimizer: Optimizer) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate
        self._rates = []

    def state_dict(self) -> dict[str, int]:
        """The lengths of batches whose gradients are being accumulated."""
        return {"steps": self._steps, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore these lengths."""
        self._steps, self._batches = state_dict["steps"], state_dict["batches"]
