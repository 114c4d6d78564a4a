"""Base of callbacks that show something after validations, within a share of the run's time."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.utils.tensorboard import SummaryWriter

from seqnets.training.loggers import writer_of
from seqnets.training.trainers import callbacks_of, is_training

SHARE = 0.01
"""The share of a run's time that each such callback may take."""


class Sparingly(Callback):
    """Show something in TensorBoard after validations, always after the first and the last.

    The model has the weights that were validated, be they averages.
    In between, validations that come too soon are skipped: what took a second to show is shown
    again after ``1 / SHARE`` seconds at the earliest, so that short epochs are not slowed down.
    """

    _due = 0.0
    _step = -1

    @abstractmethod
    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Make and write it."""

    def has_place(self, trainer: Trainer) -> bool:
        """Whether this process can show it: in TensorBoard, unless a subclass knows more places."""
        return writer_of(trainer) is not None

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show it if it is due."""
        if is_training(trainer) and time.monotonic() >= self._due:
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the final model, unless it has been shown."""
        if self._step not in (-1, trainer.global_step):
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: Any) -> None:
        if not self.has_place(trainer):
            return
        writer: Any = writer_of(trainer)
        began = time.monotonic()
        with as_validated(trainer, pl_module):
            self.show(trainer, pl_module, writer)
        ended = time.monotonic()
        self._due, self._step = ended + (ended - began) / SHARE, trainer.global_step


@contextlib.contextmanager
def as_validated(trainer: Trainer, pl_module: Any) -> Iterator[None]:
    """Switch to the weights for validation: averages of the optimizer or of callbacks, if any."""
    averaging = callbacks_of(trainer, WeightAveraging)
    with pl_module.as_validated():
        for callback in averaging:
            callback.on_validation_epoch_start(trainer, pl_module)
        try:
            yield
        finally:
            for callback in averaging:
                callback.on_validation_epoch_end(trainer, pl_module)
