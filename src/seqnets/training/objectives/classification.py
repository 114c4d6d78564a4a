"""Classification of sequences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from seqnets.checks import check_choice, is_number
from seqnets.datasets.readers.cells import few
from seqnets.errors import ConfigError
from seqnets.training.metrics import Confusions, Overview
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.rows import class_names, class_numbers, class_texts
from seqnets.training.objectives.scoring import check_classes, check_logits, cross_entropy
from seqnets.typing import IGNORE, Batch, Known

_LIKELIEST = 5
"""How many of the likeliest classes are written with their probabilities."""


class Classification(Objective):
    """Cross-entropy of one class per sequence, times its weight if the batch has weights.

    Args:
        metric: What models are compared by: "accuracy"; or "f1", averaged over the classes, so that
            rare ones count as much as others.
        class_weights: What the loss of a sequence is multiplied by, by the label of its class, 1
            for those that are not named; "balanced" gives all classes the same share of the
            training loss, however rare they are. The losses of validation and test are weighted
            alike; other figures are not.

    Raises:
        ConfigError: A weight is negative or not finite, or a label is not the dataset's (by
            :meth:`prepare`).
    """

    mode = "max"

    def __init__(
        self,
        metric: Literal["accuracy", "f1"] = "accuracy",
        class_weights: Literal["balanced"] | Mapping[Any, float] | None = None,
    ) -> None:
        check_choice(type(self).__name__, ("accuracy", "f1"), metric=metric)
        self.metric = metric
        self.class_weights = class_weights
        self._weights: Tensor | None = None
        self._classes: int | None = None

    def prepare(self, known: Known) -> None:
        """Take the number of classes, which the model has to have too, and their weights."""
        self._classes = known["sizes"]["num_classes"]
        if self.class_weights is None:
            return
        if self.class_weights == "balanced":
            self._weights = _balanced(known)
        else:
            self._weights = _named(self.class_weights, class_texts(known))

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label per row."""
        logits, state = model(batch.x, state, batch.lengths)
        if self._weights is not None:
            self._weights = self._weights.to(logits.device)
        check_logits(logits, batch.y, of_steps=False)
        check_classes(logits.shape[-1], self._classes)
        return cross_entropy(logits, batch.y, state, self._weights, batch.weights)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Accuracy, and F1 averaged over classes."""
        classes = known["sizes"]["num_classes"]
        return {
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE),
            "f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORE),
        }

    def in_metric(self, baselines: Mapping[str, float], known: Known) -> dict[str, float]:
        """Baselines are accuracies, which say nothing about F1."""
        return dict(baselines) if self.metric == "accuracy" else {}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """The probability of each class, (B, C)."""
        logits, state = model(x, state, lengths)
        return {"probabilities": logits.softmax(-1)}, state

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

    def overviews(self, known: Known) -> Mapping[str, Overview]:
        """The confusion matrix."""
        return Confusions.of(class_texts(known), "sequence")


def _balanced(known: Known) -> Tensor:
    """Weights by which all classes that occur share the training loss alike; their mean is 1."""
    if known.get("class_counts") is None:
        raise ConfigError(
            "Classification: class_weights is 'balanced', expected weights by label: the dataset "
            "does not count its classes."
        )
    counts = torch.tensor(known["class_counts"], dtype=torch.float64)
    weights = counts.sum() / (counts.count_nonzero() * counts.clamp(min=1))
    return weights.where(counts > 0, 0.0).float()


def _named(given: Any, names: Sequence[str]) -> Tensor:
    """Weights by label; 1 where none is given."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"Classification: class_weights is {given!r}, expected 'balanced' or weights by label."
        )
    weights = dict.fromkeys(names, 1.0)
    for label, weight in given.items():
        if str(label) not in weights:
            raise ConfigError(
                f"Classification: class_weights has {label!r}, expected labels of the dataset: "
                f"{few(names)}."
            )
        if not is_number(weight) or not 0 <= weight < math.inf:
            raise ConfigError(
                f"Classification: the weight of class {label!r} is {weight!r}, expected a number "
                f"of at least 0."
            )
        weights[str(label)] = float(weight)
    return torch.tensor(list(weights.values()))
