"""How far back in time gradients reach, in TensorBoard and other loggers."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter

from seqnets.checks import check_count
from seqnets.insight.gradient_flow import draw_gradient_flow, per_step, reach
from seqnets.layers import Recurrent, Truncated, gradient_flow
from seqnets.layers.lengths import broadcast_steps, valid_steps
from seqnets.layers.torch_like import TorchLike
from seqnets.training.callbacks.display import Display, can_draw, first_rows, sample_batch, write
from seqnets.training.evaluating import evaluating
from seqnets.training.objectives import LanguageModelling, Polyphony, Tagging
from seqnets.typing import IGNORE, Batch

_SCORES_STEPS = (LanguageModelling, Polyphony, Tagging)
"""Objectives with a target per step."""


class GradientFlow(Display):
    """Show after validations how strongly the loss depends on the states of earlier steps.

    For each recurrent layer: the norm of the loss's gradient with respect to the state k steps
    before the last one (:func:`seqnets.layers.gradient_flow`), as a picture in TensorBoard, and two
    scalars in all loggers. ``gradient_flow/reach`` is the number of steps until the norm is below
    1 % of that at the last step. ``gradient_flow/per_step`` is what it is multiplied with at each
    step back, on average: gradients vanish below 1 and explode above. All are medians over a sample
    of the validation part. A figure that is not a number is left out: no gradient, say, or one that
    overflows.

    Of language modelling, polyphony and tagging, the loss is that of each row's last target alone,
    unless a layer runs backwards: gradients of others would enter at each step, and hide the decay.
    They do enter in transduction and other objectives with several targets, and where the head
    scores steps jointly, as a conditional random field does. With :class:`seqnets.layers.Truncated`
    rows are cut to whole windows first, so that the last target is at the end of one.

    Args:
        rows: Sequences of the sample that are looked at.
        steps: Time steps, rows times length, beyond which fewer rows are looked at.

    Raises:
        ConfigError: An argument is not a positive integer.
    """

    def __init__(self, rows: int = 32, steps: int = 16384) -> None:
        check_count(type(self).__name__, rows=rows, steps=steps)
        self.rows, self.steps = rows, steps

    def has_place(self, trainer: Trainer) -> bool:
        """Any logger takes the scalars."""
        return trainer.is_global_zero and bool(trainer.loggers)

    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter | None) -> None:
        """Run the sample forwards and backwards, draw and write."""
        model, objective = pl_module.model, pl_module.objective
        layers = [m for m in model.modules() if isinstance(m, (Recurrent, TorchLike))]
        if not layers:
            return
        ways = ("reverse", "bidirectional")
        backwards = any(getattr(layer, way, False) for layer in layers for way in ways)
        with torch.inference_mode(False), evaluating(model):
            batch = first_rows(sample_batch(trainer, pl_module), self.rows, self.steps)
            if isinstance(objective, _SCORES_STEPS) and not backwards:
                windows = [m.steps for m in model.modules() if isinstance(m, Truncated)]
                batch = with_last_targets(in_windows(batch, max(windows, default=1)))
            precision = trainer.precision_plugin
            with precision.forward_context():
                batch = precision.convert_input(batch)
                flow = gradient_flow(model, lambda: objective(model, batch).loss)
        norms = {name: of.cpu().numpy() for name, of in flow.items() if of.numel()}
        figures = {}
        for name, of in norms.items():
            for figure, value in (("reach", reach(of)), ("per_step", per_step(of))):
                if math.isfinite(value):
                    figures[f"gradient_flow/{figure}/{name}"] = value
        if figures:
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=trainer.global_step)
                logger.save()
        if writer is not None and norms and can_draw():
            write(writer, "gradient_flow", draw_gradient_flow(norms), trainer.global_step)


def in_windows(batch: Batch, steps: int) -> Batch:
    """A batch whose rows end with a whole window of ``steps``; shorter rows stay as they are.

    Targets are those of single steps, (B, T) or (B, T, K).
    """
    T = batch.x.shape[1]
    lengths = batch.lengths
    if lengths is not None:
        lengths = torch.where(lengths < steps, lengths, lengths - lengths % steps)
    elif T >= steps:
        T -= T % steps
    y = batch.y[:, :T]
    if lengths is not None:
        y = torch.where(broadcast_steps(valid_steps(y, lengths), y), y, IGNORE)
    return batch._replace(x=batch.x[:, :T], y=y, lengths=lengths)


def with_last_targets(batch: Batch) -> Batch:
    """A batch of which only each row's last target is scored; targets are (B, T) or (B, T, K)."""
    y = batch.y
    scored = (y != IGNORE) if y.dim() == 2 else (y != IGNORE).flatten(2).any(-1)
    later = scored.flip(1).cumsum(1).flip(1)  # targets from a step on
    last = scored & (later == 1)
    return batch._replace(y=torch.where(broadcast_steps(last, y), y, IGNORE))
