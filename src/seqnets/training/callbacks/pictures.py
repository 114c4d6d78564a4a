"""Pictures of a model's predictions in TensorBoard."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter

from seqnets.models.heads import upcast
from seqnets.training.callbacks.display import Display, can_draw, sample_batch, write
from seqnets.training.evaluating import evaluating
from seqnets.training.loggers import writer_of
from seqnets.training.objectives import Objective

logger = logging.getLogger(__name__)


class Pictures(Display):
    """Show predictions after validations: all that were validated, and those for a sample.

    The objective says what is shown of all (:meth:`~seqnets.training.Objective.overviews`), and
    makes the pictures of the sample (:meth:`~seqnets.training.Objective.pictures`). Without
    matplotlib (``pip install 'seqnets[plot]'``) nothing is drawn, and a warning is logged.
    """

    _validated = -1

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Warn early if matplotlib is missing."""
        if writer_of(trainer) is not None and not can_draw():
            logger.warning("No pictures: matplotlib is missing (pip install 'seqnets[plot]').")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show them if they are due."""
        self._validated = trainer.global_step
        super().on_validation_end(trainer, pl_module)

    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Draw what was validated, and what the model says of a sample; write it."""
        if not can_draw():
            return
        if self._step != self._validated:  # at the end of training these may be shown already
            for name, picture in pl_module.scores["val"].pictures().items():
                write(writer, name, picture, self._validated)
        if type(pl_module.objective).pictures is Objective.pictures:
            return
        batch = sample_batch(trainer, pl_module)
        precision = trainer.precision_plugin
        with evaluating(pl_module.model), torch.no_grad(), precision.forward_context():
            outcome = pl_module.objective(pl_module.model, precision.convert_input(batch))
        outcome = apply_to_collection(outcome, torch.Tensor, upcast)  # NumPy has no bfloat16
        pictures = pl_module.objective.pictures(outcome, batch, pl_module.card["data"])
        for name, picture in pictures.items():
            write(writer, name, picture, trainer.global_step)
