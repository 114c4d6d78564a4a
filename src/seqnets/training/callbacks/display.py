"""Displays: callbacks that show something after validations, and what they share."""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Iterator
from importlib.util import find_spec
from operator import itemgetter
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.utils.tensorboard import SummaryWriter

from seqnets.insight import Sound
from seqnets.insight.canvas import Picture
from seqnets.insight.fonts import give_fonts
from seqnets.insight.visible import visible
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.loggers import writer_of
from seqnets.training.trainers import callbacks_of, data_of, is_training
from seqnets.typing import Batch

SHARE = 0.01
"""The share of a run's time that each display may take."""


class Display(SequenceCallback):
    """Base of callbacks that show something in TensorBoard after validations.

    It is shown after the first validation and the last. Of those in between, the ones that come too
    soon are skipped: what took a second to show is shown again after ``1 / SHARE`` seconds at the
    earliest, so that short epochs are not slowed down. The model has the weights that were
    validated, be they averages.
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


def sample_batch(trainer: Trainer, pl_module: Any) -> Batch:
    """A batch sampled from the whole validation part, on the module's device."""
    data = data_of(trainer)
    sample = data.val_dataloader().sample()
    return data.transfer_batch_to_device(sample, pl_module.device, 0)


def first_rows(batch: Batch, count: int, steps: int | None = None) -> Batch:
    """The first rows of a batch, at most ``count``; one, or as many as ``steps`` steps allow."""
    if steps is not None:
        count = max(1, min(count, steps // max(1, batch.x.shape[1])))
    return batch.map(itemgetter(slice(count)))


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write(writer: SummaryWriter, name: str, picture: Picture, step: int) -> None:
    """Write a picture to TensorBoard as an image, audio or text."""
    if isinstance(picture, str):
        writer.add_text(name, visible(picture), step)
    elif isinstance(picture, Sound):
        samples = torch.from_numpy(picture.samples)[None]
        writer.add_audio(name, samples, step, sample_rate=picture.rate)
    else:
        give_fonts(picture)
        writer.add_figure(name, picture, step)
