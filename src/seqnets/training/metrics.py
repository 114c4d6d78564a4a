"""Metrics missing from torchmetrics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from seqnets.datasets.scores.edits import Items, edit_distances
from seqnets.datasets.scores.tags import count_entities, f1_score
from seqnets.insight.canvas import Picture
from seqnets.insight.confusion import draw_confusion
from seqnets.typing import IGNORE

FIGURES = ("f1", "precision", "recall")

_MOST_CLASSES = 1000
"""The most classes of which every pair is counted: 8 MB of counts."""


class Mean(Metric, ABC):
    """A mean over all scored targets, independent of how they were batched."""

    full_state_update = False
    total: Tensor
    scored: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("scored", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean; NaN if nothing was scored."""
        return self.total / self.scored


class MeanLoss(Mean):
    """The mean loss over all scored targets; a NaN loss makes it NaN.

    torchmetrics' ``MeanMetric`` would drop the NaN or, with ``nan_strategy="disable"`` (1.9.0),
    weight all batches equally.
    """

    def update(self, loss: Tensor, scored: Tensor) -> None:
        """Add a batch's mean loss over ``scored`` targets."""
        self.total += loss * scored
        self.scored += scored


class MeanScore(Mean):
    """The mean of a score over all targets that are not NaN.

    Args:
        score: Maps predictions, (..., Q), and targets, (...), to a score of each, (...).
    """

    def __init__(self, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.score = score

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        self._add(self.score(predictions, targets), targets.isnan())

    def _add(self, scores: Tensor, missing: Tensor) -> None:
        self.total += scores.masked_fill(missing, 0).float().sum()
        self.scored += (~missing).sum()


class MeanError(MeanScore):
    """A mean score where lower is better."""

    higher_is_better = False


class ScaledError(MeanError):
    """A mean of errors that are divided by scales; where these are not above 0, none is scored.

    Args:
        score: As for :class:`MeanScore`.
    """

    def update(self, predictions: Tensor, targets: Tensor, scales: Tensor | None = None) -> None:
        """Add a batch, targets (B, T, K), with scales of its rows, (B, K); of none without them."""
        if scales is None:
            return
        scales = scales[:, None]
        missing = targets.isnan() | ~(scales > 0)
        self._add(self.score(predictions, targets) / scales, missing)


class OwnError(MeanAbsoluteError):
    """The mean absolute error of one of several outputs, in its original units.

    Args:
        column: Index of the output.
        unit: Original units per standardised unit.
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


class SequenceScore(Mean):
    """A score of whole sequences against their targets, among those with a target.

    Args:
        items: Maps a sequence's ids to what is compared, such as words.
    """

    def __init__(self, items: Callable[[list[int]], Items] = list) -> None:
        super().__init__()
        self.items = items

    def pairs(self, predictions: Tensor, targets: Tensor) -> tuple[list[Items], list[Items]]:
        """The items of predictions and targets, ids (B, U') and (B, U), each padded.

        Targets of shape (B, 0) are unknown.
        """
        if not targets.shape[1]:
            return [], []
        written, right = (
            [self.items([number for number in row if number != IGNORE]) for row in ids.tolist()]
            for ids in (predictions, targets)
        )
        return written, right


class EditRate(SequenceScore):
    """Edits per item of the targets: insertions, deletions and substitutions."""

    higher_is_better = False

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add ids, (B, U') and (B, U), ``IGNORE`` past each end."""
        written, right = self.pairs(predictions, targets)
        self.total += int(edit_distances(written, right).sum())
        self.scored += sum(map(len, right))


class SequenceMatch(SequenceScore):
    """The share of correct sequences."""

    higher_is_better = True

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add ids, (B, U') and (B, U), ``IGNORE`` past each end."""
        written, right = self.pairs(predictions, targets)
        self.total += sum(w == r for w, r in zip(written, right, strict=True))
        self.scored += len(right)


class BitsPerCharacter(Mean):
    """Mean cross-entropy in bits per character, for tokens of several characters.

    Args:
        characters: Number of characters of each token, (V,).
    """

    higher_is_better = False
    characters: Tensor

    def __init__(self, characters: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("characters", torch.from_numpy(characters), persistent=False)

    def update(self, nats: Tensor, targets: Tensor) -> None:
        """Add targets, ``IGNORE`` where not scored, and the loss of each in nats."""
        scored = targets != IGNORE
        self.total += nats[scored].sum() / math.log(2)
        self.scored += self.characters[targets[scored]].sum()


class Detection(Metric, ABC):
    """Precision, recall or F1 over all predicted and all target items; 0 if there are none.

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
        """The numbers of true positives, predicted items and target items, (3,) int64."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add a batch of classes, both (B, T); ``IGNORE`` where a target is not scored."""
        self.counts += self.count(predictions, targets)

    def compute(self) -> Tensor:
        """The figure."""
        hits, predicted, actual = self.counts.tolist()
        of = {"precision": (hits, predicted, predicted), "recall": (hits, actual, actual)}
        return torch.tensor(f1_score(*of.get(self.figure, (hits, predicted, actual))))


class LabelScore(Detection):
    """Detection of the steps of one class.

    Args:
        label: The class's number.
        figure: "f1", "precision" or "recall".
    """

    def __init__(self, label: int, figure: str = "f1") -> None:
        super().__init__(figure)
        self.label = label

    def count(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Count steps."""
        predicted = (predictions == self.label) & (targets != IGNORE)
        target = targets == self.label
        return torch.stack([(predicted & target).sum(), predicted.sum(), target.sum()])


class EntityScore(Detection):
    """Detection of entities as in CoNLL: exact span and type must match.

    Args:
        labels: The BIO labels, indexed by class number.
        figure: "f1", "precision" or "recall".
    """

    def __init__(self, labels: Sequence[str], figure: str = "f1") -> None:
        super().__init__(figure)
        self.labels = list(labels)

    def count(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Count entities."""
        counts = count_entities(predictions.cpu().numpy(), targets.cpu().numpy(), self.labels)
        return torch.tensor(counts, device=predictions.device)


class Overview(Metric, ABC):
    """A metric whose value is drawn."""

    @abstractmethod
    def draw(self, value: Tensor) -> Picture:
        """Draw a value that was computed."""


class Confusions(MulticlassConfusionMatrix, Overview):
    """How often each class was predicted for each target class, (C, C): target by prediction.

    Args:
        labels: Names of the C classes.
        unit: What has a class, "sequence" or "step".
    """

    def __init__(self, labels: Sequence[str], unit: str) -> None:
        super().__init__(len(labels), ignore_index=IGNORE, validate_args=False)
        self.labels, self.unit = labels, unit

    @classmethod
    def of(cls, labels: Sequence[str], unit: str) -> dict[str, Confusions]:
        """The confusions to show, by name: none where there are too many classes."""
        return {"confusion": cls(labels, unit)} if len(labels) <= _MOST_CLASSES else {}

    def draw(self, value: Tensor) -> Picture:
        """Draw a row for each target class."""
        return draw_confusion(value.cpu().numpy(), self.labels, self.unit)
