"""The one place that knows which logger is TensorBoard's."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def go_on_after(trainer: Trainer, step: int) -> None:
    """Have TensorBoard forget what a killed run has told of later steps: they come again.

    What it told of the step itself, such as a validation, stays. To be called before anything is
    written.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step + 1


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """Where this process writes TensorBoard events; None if it does not."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
