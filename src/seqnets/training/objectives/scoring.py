"""A model's output against the targets of a batch."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.errors import ConfigError, DataError
from seqnets.models import Head
from seqnets.models.heads import invalid_targets, upcast
from seqnets.training.objectives.base import Objective, Outcome
from seqnets.typing import IGNORE, Batch


def score_steps(model: nn.Module, batch: Batch, state: Any) -> Outcome:
    """Cross-entropy of one class per step, or the loss of the model's head.

    With a head the predictions in training are ``IGNORE``, since only metrics need them.
    """
    output = getattr(model, "output", None)
    if not isinstance(output, Head):
        logits, state = model(batch.x, state, batch.lengths)
        check_logits(logits, batch.y, of_steps=True)
        return cross_entropy(logits.flatten(0, 1), batch.y.flatten(), state)
    y, state = model.features(batch.x, state, batch.lengths)  # type: ignore[operator]
    return score_features(output, y, batch, state)


def score_features(output: nn.Module, y: Tensor, batch: Batch, state: Any) -> Outcome:
    """As :func:`score_steps`, from the features that enter the output layer, (B, T, H)."""
    if not isinstance(output, Head):
        return cross_entropy(output(y).flatten(0, 1), batch.y.flatten(), state)
    check_targets(batch.y, output.num_classes)
    scored = output.scored(y, batch.y, batch.lengths)
    count = (scored != IGNORE).sum()
    loss = upcast(output.loss(y, scored, batch.lengths)) / count.clamp(min=1)
    targets = scored.flatten()
    if output.training:
        return Outcome(loss, count, torch.full_like(targets, IGNORE), targets, state)
    predicted = output.predict(y, batch.lengths).detach().flatten(0, 1)
    return Outcome(loss, count, predicted, targets, state)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    state: Any,
    weights: Tensor | None = None,
    of_rows: Tensor | None = None,
) -> Outcome:
    """Cross-entropy of logits (N, C) with target classes (N,); ``IGNORE`` is not scored.

    With weights, (C,), each target's loss is multiplied by that of its class before the mean; with
    weights of the rows, (N,), by that of its row.

    Raises:
        DataError: A target is not a class.
    """
    check_targets(targets, logits.shape[-1])
    count = (targets != IGNORE).sum()
    wide = upcast(logits)
    weights = None if weights is None else weights.to(wide.dtype)
    if of_rows is None:
        total = F.cross_entropy(wide, targets, weights, ignore_index=IGNORE, reduction="sum")
    else:
        each = F.cross_entropy(wide, targets, weights, ignore_index=IGNORE, reduction="none")
        total = (each * of_rows).sum()
    return Outcome(total / count.clamp(min=1), count, logits.detach(), targets, state)


def perplexity(loss: float) -> float:
    """Perplexity of a mean loss in nats."""
    return math.exp(min(loss, 700.0))  # beyond that a float overflows


def check_logits(logits: Tensor, targets: Tensor, *, of_steps: bool) -> None:
    """Raise DataError unless there are logits (B, T, C), or (B, C), with a target for each C."""
    expected = "(B, T) and (B, T, C)" if of_steps else "(B,) and (B, C)"
    if targets.dim() != 1 + of_steps or logits.shape[:-1] != targets.shape:
        raise DataError(
            f"Objective: targets have shape {tuple(targets.shape)} and predictions "
            f"{tuple(logits.shape)}, expected {expected}.\n"
            "  What predicts every step does not fit targets of whole sequences, and vice versa."
        )


def check_classes(told: int, known: int | None) -> None:
    """Raise ConfigError unless a model tells apart as many classes as the dataset has, if known."""
    if known is not None and told != known:
        raise ConfigError(
            f"Objective: the model tells {told} classes apart, expected {known}, as the dataset "
            "has.\n  Choose a model for such data: `seqnets list models`."
        )


def check_shape(objective: Objective, predicted: Tensor, targets: Tensor) -> None:
    """Raise DataError unless there is a target for each predicted number."""
    if predicted.shape != targets.shape:
        raise DataError(
            f"{type(objective).__name__}: targets have shape {tuple(targets.shape)}, expected "
            f"{tuple(predicted.shape)}, the shape of the predictions."
        )


def check_targets(targets: Tensor, classes: int) -> None:
    """Raise DataError unless each target is a class or ``IGNORE``; checked on CPUs only."""
    if targets.device.type != "cpu":  # reading values would synchronise with the device
        return
    wrong = invalid_targets(targets, classes)
    if wrong.any():
        place = int(wrong.flatten().nonzero()[0, 0])
        raise DataError(
            f"Objective: target {place} of the batch is {int(targets.flatten()[place])}, expected "
            f"0..{classes - 1} (or {IGNORE}: not scored).\n"
            f"  The model has {classes} classes."
        )
