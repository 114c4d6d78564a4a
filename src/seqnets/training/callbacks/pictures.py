"""Pictures of a model's predictions in TensorBoard."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter

from seqnets.models.heads import upcast
from seqnets.training.callbacks.showing import can_draw, sample_batch, write
from seqnets.training.callbacks.sparingly import Sparingly
from seqnets.training.evaluating import evaluating
from seqnets.training.loggers import writer_of

logger = logging.getLogger(__name__)


class Pictures(Sparingly):
    """Show predictions for a sample of the validation part, after validations.

    The objective makes the pictures (:meth:`~seqnets.training.Objective.pictures`). Without
    matplotlib (``pip install 'seqnets[plot]'``) nothing is drawn, and a warning is logged.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Warn early if matplotlib is missing."""
        if writer_of(trainer) is not None and not can_draw():
            logger.warning("No pictures: matplotlib is missing (pip install 'seqnets[plot]').")

    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Run the model over the batch, draw and write."""
        if not can_draw():
            return
        batch = sample_batch(trainer, pl_module)
        precision = trainer.precision_plugin
        with evaluating(pl_module.model), torch.no_grad(), precision.forward_context():
            outcome = pl_module.objective(pl_module.model, precision.convert_input(batch))
        outcome = apply_to_collection(outcome, torch.Tensor, upcast)  # NumPy has no bfloat16
        pictures = pl_module.objective.pictures(outcome, batch, pl_module.card["data"])
        for name, picture in pictures.items():
            write(writer, name, picture, trainer.global_step)
