"""What is learned, and how it is measured: one objective for each shape of a task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE, Batch, Sizes


class Outcome(NamedTuple):
    """What an objective finds in a batch.

    Attributes:
        loss: Mean over the scored targets, a scalar to be differentiated.
        scored: How many targets were scored, a scalar.
        predictions: What the model said, in the form that the metrics take.
        targets: What was right, in the same form.
        state: The model's state after the batch.
    """

    loss: Tensor
    scored: Tensor
    predictions: Tensor
    targets: Tensor
    state: Any


class Objective(ABC):
    """A loss, its metrics, and the metric by which checkpoints are compared.

    Attributes:
        metric: The metric that counts, by its name in :meth:`metrics`.
        mode: "min" or "max": which way it improves.
    """

    metric: str = "loss"
    mode: str = "min"

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Run the model over a batch and score what it says."""

    @abstractmethod
    def metrics(self, sizes: Sizes) -> dict[str, Metric]:
        """New metrics beside the loss, by name; each takes (predictions, targets)."""

    def derived(self, loss: float) -> dict[str, float]:
        """Further figures that follow from the mean loss alone."""
        return {}


class LanguageModelling(Objective):
    """Cross-entropy of the next token, over all steps.

    Args:
        unit: What a token is: "characters" (compared in bits per character) or "words" (compared
            in perplexity).
    """

    def __init__(self, unit: str = "characters") -> None:
        if unit not in ("characters", "words"):
            raise ConfigError(
                f"LanguageModelling: unit is {unit!r}, expected 'characters' or 'words'."
            )
        self.metric = "bits_per_character" if unit == "characters" else "perplexity"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score each next token; ``IGNORE`` where none is."""
        logits, state = model(batch.x, state, batch.lengths)
        return _cross_entropy(logits.flatten(0, 1), batch.y.flatten(), state)

    def metrics(self, sizes: Sizes) -> dict[str, Metric]:
        """None: all figures follow from the loss."""
        return {}

    def derived(self, loss: float) -> dict[str, float]:
        """The loss in bits for each token, or as perplexity."""
        if self.metric == "perplexity":
            return {"perplexity": math.exp(min(loss, 700.0))}
        return {"bits_per_character": loss / math.log(2)}


class Classification(Objective):
    """Cross-entropy of one class a sequence; compared by accuracy."""

    metric, mode = "accuracy", "max"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label a row."""
        logits, state = model(batch.x, state, batch.lengths)
        return _cross_entropy(logits, batch.y, state)

    def metrics(self, sizes: Sizes) -> dict[str, Metric]:
        """Accuracy, and F1 averaged over classes."""
        classes = sizes["num_classes"]
        return {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "f1": MulticlassF1Score(classes, average="macro"),
        }


class Tagging(Objective):
    """Cross-entropy of one class a step; compared by accuracy."""

    metric, mode = "accuracy", "max"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label a step; ``IGNORE`` where none is."""
        logits, state = model(batch.x, state, batch.lengths)
        return _cross_entropy(logits.flatten(0, 1), batch.y.flatten(), state)

    def metrics(self, sizes: Sizes) -> dict[str, Metric]:
        """Accuracy over the scored steps."""
        classes = sizes["num_classes"]
        return {"accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)}


class Regression(Objective):
    """Squared error of the numbers of a sequence; compared by it."""

    metric = "mse"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score K values a row."""
        values, state = model(batch.x, state, batch.lengths)
        if values.shape != batch.y.shape:
            raise DataError(
                f"Regression: targets have shape {tuple(batch.y.shape)}, expected "
                f"{tuple(values.shape)}, the shape of what the model says."
            )
        loss = F.mse_loss(values, batch.y)
        count = torch.tensor(len(values), device=values.device)
        return Outcome(loss, count, values.detach(), batch.y, state)

    def metrics(self, sizes: Sizes) -> dict[str, Metric]:
        """Mean squared and mean absolute error."""
        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}


def _cross_entropy(logits: Tensor, targets: Tensor, state: Any) -> Outcome:
    if targets.device.type == "cpu":  # elsewhere a look at the values would wait for the device
        _check_targets(targets, logits.shape[-1])
    count = (targets != IGNORE).sum()
    total = F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
    return Outcome(total / count.clamp(min=1), count, logits.detach(), targets, state)


def _check_targets(targets: Tensor, classes: int) -> None:
    wrong = ((targets < 0) & (targets != IGNORE)) | (targets >= classes)
    if wrong.any():
        place = int(wrong.nonzero()[0, 0])
        raise DataError(
            f"Objective: target {place} of the batch is {int(targets[place])}, expected "
            f"0..{classes - 1} (or {IGNORE}: not scored).\n"
            f"  The model tells {classes} classes apart."
        )
