"""The one place that knows one logger from another."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from seqnets.training.loggers import CSVLogger


def go_on_after(trainer: Trainer, step: int) -> None:
    """Have loggers forget what a killed run has told of later steps: they come again.

    What it told of the step itself, such as a validation, stays. To be called before anything is
    written.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step + 1
        elif isinstance(logger, CSVLogger):
            logger.experiment.go_on_after(step)


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """Where this process writes TensorBoard events; None if it does not."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
