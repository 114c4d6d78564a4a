"""The one place that knows which logger is TensorBoard's."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """Where this process writes TensorBoard events; None if it does not."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
