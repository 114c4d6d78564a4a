"""Metrics that torchmetrics does not have."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric
from typing_extensions import Self

from seqnets.datasets.scores.tags import count_entities, f1_score
from seqnets.typing import IGNORE

FIGURES = ("f1", "precision", "recall")


class Mean(Metric, ABC):
    """A mean over all targets that were scored, whatever batches they came in."""

    full_state_update = False
    total: Tensor
    scored: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("scored", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean; NaN where nothing was scored."""
        return self.total / self.scored


class Metrics(nn.ModuleDict):
    """Metrics that count in their own dtypes, whatever a module they are part of is converted to.

    Sums over many batches in half precision would come to a halt.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Go to another device, at most."""
        device = fn(torch.zeros(())).device
        return super()._apply(lambda tensor: tensor.to(device), recurse)


class MeanLoss(Mean):
    """The mean loss over all that was scored; a loss that is NaN makes it NaN.

    torchmetrics' ``MeanMetric`` would leave the NaN out, or, told not to look for it
    (``nan_strategy="disable"``, 1.9.0), give each batch the same weight.
    """

    def update(self, loss: Tensor, scored: Tensor) -> None:
        """Add a batch's mean loss over ``scored`` targets."""
        self.total += loss * scored
        self.scored += scored


class MeanScore(Mean):
    """The mean of a score over all targets that are not NaN.

    Args:
        score: Takes predictions, (..., Q), and targets, (...); gives a number for each, (...).
    """

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        hidden = targets.isnan()
        scores = self.score(predictions, targets).masked_fill(hidden, 0)
        self.total += scores.float().sum()
        self.scored += (~hidden).sum()


class MeanError(MeanScore):
    """A mean score of which less is better."""

    higher_is_better = False


class OwnError(MeanAbsoluteError):
    """The mean absolute error of one of several numbers, in its own units.

    Args:
        column: Which of them.
        unit: What 1 is there.
    """

    def __init__(self, column: int, unit: float) -> None:
        super().__init__()
        self.column, self.unit = column, unit

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch, (N, K)."""
        super().update(predictions[:, self.column], targets[:, self.column])

    def compute(self) -> Tensor:
        """The error."""
        return super().compute() * self.unit


class BitsPerCharacter(Metric):
    """What tokens of several characters cost for each of those.

    Args:
        characters: Of each token, (V,).
    """

    full_state_update = False
    higher_is_better = False
    characters: Tensor
    bits: Tensor
    written: Tensor

    def __init__(self, characters: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("characters", torch.from_numpy(characters), persistent=False)
        self.add_state("bits", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("written", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, nats: Tensor, targets: Tensor) -> None:
        """Add targets, ``IGNORE`` where none is, and what each of them cost."""
        scored = targets != IGNORE
        self.bits += nats[scored].sum() / math.log(2)
        self.written += self.characters[targets[scored]].sum()

    def compute(self) -> Tensor:
        """Bits per character; NaN where nothing was scored."""
        return self.bits / self.written


class Detection(Metric, ABC):
    """Precision, recall or F1 over all that was said and all that was there; 0 for none at all.

    Args:
        figure: "f1", "precision" or "recall".
    """

    full_state_update = False
    higher_is_better = True
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
