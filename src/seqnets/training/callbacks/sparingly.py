"""What is shown after a validation, as long as it takes little of a run's time."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.utils.tensorboard import SummaryWriter

from seqnets.training.callbacks.tensorboard import writer_of
from seqnets.training.module import is_training

SHARE = 0.01
"""The share of a run's time that one such callback may take."""


class Sparingly(Callback):
    """Show something in TensorBoard after validations, the first and the last in any case.

    In between it is left out where it would come too soon: what took a second to show is shown
    again after ``1 / SHARE`` seconds, so that short epochs are not slowed down.
    """

    _due = 0.0
    _step = -1

    @abstractmethod
    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Make it and write it."""

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show it if it is time."""
        if is_training(trainer) and time.monotonic() >= self._due:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show what the model has come to."""
        if self._step not in (-1, trainer.global_step):
            with pl_module.as_validated():
                self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: Any) -> None:
        writer = writer_of(trainer)
        if writer is None:
            return
        began = time.monotonic()
        self.show(trainer, pl_module, writer)
        ended = time.monotonic()
        self._due, self._step = ended + (ended - began) / SHARE, trainer.global_step
