"""Classification of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from seqnets.insight.canvas import Picture
from seqnets.insight.confusion import count_confusions, draw_confusion
from seqnets.training.objectives.base import (
    Objective,
    Outcome,
    Row,
    class_names,
    class_numbers,
    cross_entropy,
)
from seqnets.typing import IGNORE, Batch, Known

_LIKELIEST = 5
"""How many of the likeliest classes are written with their probabilities."""


class Classification(Objective):
    """Cross-entropy of one class per sequence; compared by accuracy."""

    metric, mode = "accuracy", "max"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label per row."""
        logits, state = model(batch.x, state, batch.lengths)
        return cross_entropy(logits, batch.y, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Accuracy, and F1 averaged over classes."""
        classes = known["sizes"]["num_classes"]
        return {
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE),
            "f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORE),
        }

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per sequence: the likeliest classes and their probabilities."""
        names = class_names(known)
        shares = outcome.predictions.float().softmax(-1).cpu()
        predicted = outcome.predictions.argmax(-1).tolist()
        rows = []
        for share, number, target in zip(shares, predicted, outcome.targets.tolist(), strict=True):
            highest = share.topk(min(_LIKELIEST, len(share)))
            likeliest = zip(highest.indices.tolist(), highest.values.tolist(), strict=True)
            rows.append(
                {
                    "prediction": names[number],
                    "probability": round(float(share[number]), 6),
                    "target": None if target == IGNORE else names[target],
                    "probabilities": {str(names[n]): round(p, 6) for n, p in likeliest},
                }
            )
        return rows

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Predicted and target classes, (N,) each."""
        return class_numbers(rows, "prediction", known), class_numbers(rows, "target", known)

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """The confusion matrix of the batch."""
        names = [str(name) for name in class_names(known)]
        true, predicted = (
            outcome.targets.cpu().numpy(),
            outcome.predictions.argmax(-1).cpu().numpy(),
        )
        return {"confusion": draw_confusion(count_confusions(true, predicted, len(names)), names)}
