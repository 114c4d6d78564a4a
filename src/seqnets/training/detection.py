"""How well something rare is found among many steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from seqnets.datasets.tag_scores import count_entities, f1_score
from seqnets.typing import IGNORE

FIGURES = ("f1", "precision", "recall")


class Detection(Metric, ABC):
    """Precision, recall or F1 over all that was said and all that was there; 0 for none at all.

    Args:
        figure: "f1", "precision" or "recall".
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, figure: str = "f1") -> None:
        super().__init__()
        self.figure = figure
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def count(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Count what is found rightly, what is said, and what is there, (3,) int64."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch of classes, both (B, T); ``IGNORE`` where a target is not scored."""
        self.counts += self.count(predictions, targets)

    def compute(self) -> Tensor:
        """The figure."""
        hits, said, right = self.counts.tolist()
        of = {"precision": (hits, said, said), "recall": (hits, right, right)}
        return torch.tensor(f1_score(*of.get(self.figure, (hits, said, right))))


class LabelScore(Detection):
    """How well the steps of one class are found.

    Args:
        label: The class's number.
        figure: "f1", "precision" or "recall".
    """

    def __init__(self, label: int, figure: str = "f1") -> None:
        super().__init__(figure)
        self.label = label

    def count(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Count steps."""
        said = (predictions == self.label) & (targets != IGNORE)
        right = targets == self.label
        return torch.stack([(said & right).sum(), said.sum(), right.sum()])


class EntityScore(Detection):
    """How well entities are found, as CoNLL counts: all steps and the kind must be right.

    Args:
        labels: The BIO labels by number.
        figure: "f1", "precision" or "recall".
    """

    def __init__(self, labels: Sequence[str], figure: str = "f1") -> None:
        super().__init__(figure)
        self.labels = list(labels)

    def count(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Count entities."""
        counts = count_entities(predictions.cpu().numpy(), targets.cpu().numpy(), self.labels)
        return torch.tensor(counts, device=predictions.device)
