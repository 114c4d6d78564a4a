"""Telling the class of a sequence."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from seqnets.training.objectives.base import Objective, Outcome, cross_entropy
from seqnets.typing import Batch, Known


class Classification(Objective):
    """Cross-entropy of one class a sequence; compared by accuracy."""

    metric, mode = "accuracy", "max"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label a row."""
        logits, state = model(batch.x, state, batch.lengths)
        return cross_entropy(logits, batch.y, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Accuracy, and F1 averaged over classes."""
        classes = known["sizes"]["num_classes"]
        return {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "f1": MulticlassF1Score(classes, average="macro"),
        }
