"""Telling the class of each step."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from seqnets.training.objectives.base import Objective, Outcome, score_steps
from seqnets.typing import IGNORE, Batch, Known


class Tagging(Objective):
    """Cross-entropy of one class a step; compared by accuracy."""

    metric, mode = "accuracy", "max"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label a step; ``IGNORE`` where none is."""
        return score_steps(model, batch, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Accuracy over the scored steps."""
        classes = known["sizes"]["num_classes"]
        return {"accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE)}
