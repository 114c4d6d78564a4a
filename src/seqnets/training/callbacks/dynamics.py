"""The inside of recurrent layers, in TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter

from seqnets.checks import check_count
from seqnets.layers import Recurrent, WatchedLayer, watch_layers
from seqnets.layers.torch_like import TorchLike
from seqnets.training.callbacks.display import Display, can_draw, first_rows, sample_batch, write
from seqnets.training.dynamics import draw_read, draw_seen, rest_of
from seqnets.training.evaluating import evaluating
from seqnets.typing import Batch

logger = logging.getLogger(__name__)


class Dynamics(Display):
    """Show after validations what recurrent layers hold over time, and where they come to rest.

    For each layer a heat map of its states, gates and candidates over the steps of one sequence of
    the validation part, or its text as single units see it; and the trajectories of several, with
    the fixed points of the layer and their eigenvalues (:func:`seqnets.layers.fixed_points`).
    Without matplotlib nothing is drawn.

    Args:
        rows: Sequences whose trajectories are drawn.
        steps: Time steps, rows times length, beyond which fewer rows are drawn.
        largest: Maximum numbers in a state whose fixed points are sought, such as twice the units
            of an LSTM; 0 to seek none. The time they take grows with the cube.

    Raises:
        ConfigError: An argument is not a whole number, or out of range.
    """

    def __init__(self, rows: int = 32, steps: int = 4096, largest: int = 256) -> None:
        check_count(type(self).__name__, rows=rows, steps=steps)
        check_count(type(self).__name__, least=0, largest=largest)
        self.rows, self.steps, self.largest = rows, steps, largest

    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Run the sample, draw and write."""
        layers = (isinstance(m, (Recurrent, TorchLike)) for m in pl_module.model.modules())
        if not can_draw() or not any(layers):
            return
        batch = first_rows(sample_batch(trainer, pl_module), self.rows, self.steps)
        known = pl_module.card["data"]
        with evaluating(pl_module.model):
            try:
                seen = self._seen(trainer, pl_module, batch)
                for kind, draw in (("states", draw_seen), ("units", draw_read)):
                    for name, figure in draw(seen, batch, known).items():
                        write(writer, f"{kind}/{name}", figure, trainer.global_step)
                for name, layer in seen.items():
                    drawn = rest_of(layer, batch, known, largest=self.largest).draw(known)
                    if drawn is not None:
                        write(writer, f"fixed_points/{name}", drawn, trainer.global_step)
            except Exception as error:  # of a model that takes single steps, say; training goes on
                logger.warning("No pictures of recurrent layers: %s", error)

    def _seen(self, trainer: Trainer, pl_module: Any, batch: Batch) -> Mapping[str, WatchedLayer]:
        """The inside of the layers, in the trainer's precision."""
        precision = trainer.precision_plugin
        with torch.no_grad(), precision.forward_context():
            given = precision.convert_input(batch)
            return watch_layers(
                pl_module.model, lambda: pl_module.objective(pl_module.model, given)
            )
