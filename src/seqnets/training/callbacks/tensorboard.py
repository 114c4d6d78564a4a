"""Access to the TensorBoard logger of a trainer."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from seqnets.training.loggers import CSVLogger


def purge_after(trainer: Trainer, step: int) -> None:
    """Make loggers drop what a killed run wrote after ``step``, since those steps run again.

    Entries of the step itself, such as a validation, are kept. Call this before anything is logged.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step + 1
        elif isinstance(logger, CSVLogger):
            logger.experiment.purge_after(step)


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """This process's TensorBoard writer; None if it has none."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
