"""The objective: a loss, its metrics, and how predictions are written, read and drawn."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.datasets import DataModule
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError, DataError
from seqnets.insight.canvas import Picture
from seqnets.models import Head
from seqnets.models.heads import invalid_targets, upcast
from seqnets.typing import IGNORE, Batch, Known

Row = dict[str, Any]
"""A prediction as plain values, with the truth under "target"; None where unknown."""


class Outcome(NamedTuple):
    """The result of an objective on a batch.

    Attributes:
        loss: Mean over the scored targets, a scalar.
        scored: Number of scored targets, a scalar.
        predictions: The model's predictions, in the form that the metrics take.
        targets: The targets, in the same form.
        state: The model's state after the batch.
        details: Further results for pictures, such as attention weights.
        penalty: Regularisation term added to the loss in training, a scalar; never logged.
    """

    loss: Tensor
    scored: Tensor
    predictions: Tensor
    targets: Tensor
    state: Any
    details: Any = None
    penalty: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The training loss: loss plus penalty."""
        return self.loss if self.penalty is None else self.loss + self.penalty


class Objective(ABC):
    """A loss, its metrics, and the metric by which checkpoints are compared.

    Attributes:
        metric: Name of the metric by which models are compared: "loss", or one of :meth:`metrics`
            or :meth:`derived`.
        mode: "min" or "max": the direction in which it improves.
    """

    metric: str = "loss"
    mode: str = "min"

    def prepare(self, known: Known) -> None:  # noqa: B027 (most need nothing)
        """Take what is needed of the dataset's description of itself, before anything is scored."""

    def check(self, model: nn.Module, data: DataModule) -> None:  # noqa: B027 (most need nothing)
        """Raise DataError for data that the model cannot learn, before it is trained on them."""

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Run the model over a batch and score its output."""

    @abstractmethod
    def metrics(self, known: Known) -> dict[str, Metric]:
        """New metrics beside the loss, by name; each takes (predictions, targets).

        Args:
            known: The dataset's description of itself.
        """

    def derived(self, loss: float) -> dict[str, float]:
        """Further figures that are functions of the mean loss."""
        return {}

    def in_metric(self, baselines: Mapping[str, float], known: Known) -> dict[str, float]:
        """A dataset's ``baselines()`` in the main metric; none if another one's do not convert.

        Baselines of a dataset that names no metric are taken to be in the objective's own.

        Args:
            baselines: Scores by name.
            known: The dataset's description of itself; "metric" is what its baselines are in, if
                the dataset has several.
        """
        return dict(baselines) if known.get("metric", self.metric) == self.metric else {}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """Run a model as another program does: its outputs by what they are, and the state.

        Every output has a row for each of ``x``; :func:`~seqnets.training.export` writes them into
        a file.

        Raises:
            ConfigError: What this objective asks of a model is no function of such inputs.
        """
        y, state = model(x, state, lengths)
        return {"output": y}, state

    def scaling(self, known: Known) -> Scaling | None:
        """How the numbers that a model predicts are standardised, (K,); None if they are not."""
        return None

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """Predictions for a batch as they are written to a file: a row per sequence or step.

        Raises:
            ConfigError: This objective writes no predictions.
        """
        raise ConfigError(f"{type(self).__name__}: writes no predictions.")

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """The predictions and targets of rows that :meth:`rows` wrote, as the metrics take them.

        Raises:
            DataError: A row lacks an entry, or has one that the dataset does not know.
        """
        raise ConfigError(f"{type(self).__name__}: reads no predictions.")

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The metrics of rows that :meth:`rows` wrote."""
        predictions, targets = self.read(rows, known)
        metrics = self.metrics(known).items()
        return {name: float(metric(predictions, targets)) for name, metric in metrics}

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """Figures, sounds and texts about a batch, by name, for TensorBoard."""
        return {}


def entries(rows: Sequence[Row], key: str) -> list[Any]:
    """One entry of each row, for :meth:`Objective.read`.

    Raises:
        DataError: A row has no entry under this key.
    """
    for number, row in enumerate(rows, start=1):
        if row.get(key) is None:
            raise DataError(
                f"Row {number}: {key!r} is {'null' if key in row else 'missing'}, expected a value."
                f"\n  The keys are {', '.join(row) or 'none'}."
            )
    return [row[key] for row in rows]


def written_texts(rows: Sequence[Row], key: str) -> list[str]:
    """The text of each row under a key.

    Raises:
        DataError: A row has none.
    """
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(key), str):
            raise DataError(
                f"Row {number}: {key} is {row.get(key)!r}, expected a text to be scored."
            )
    return [row[key] for row in rows]


def class_numbers(rows: Sequence[Row], key: str, known: Known) -> Tensor:
    """The class that each row names under a key, by number, (N,) int64.

    Raises:
        DataError: A row names no class, or one that the dataset does not have.
    """
    names = class_names(known)
    numbers = {name: number for number, name in enumerate(names)}
    found = []
    for row, entry in enumerate(entries(rows, key), start=1):
        number = None if isinstance(entry, (list, dict, bool)) else numbers.get(entry)
        if number is None:
            shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
            raise DataError(f"Row {row}: got {key} {entry!r}, expected one of {shown}.")
        found.append(number)
    return torch.tensor(found, dtype=torch.int64)


def class_names(known: Known) -> list[Any]:
    """The names of classes in rows: their labels, or their numbers if they have none."""
    return known.get("labels") or list(range(known["sizes"]["num_classes"]))


def class_texts(known: Known) -> list[str]:
    """The names of classes as text."""
    return list(map(str, class_names(known)))


def lengths_of(batch: Batch) -> list[int]:
    """The valid steps of each row of a batch."""
    B, T = batch.x.shape[:2]
    return [T] * B if batch.lengths is None else batch.lengths.tolist()


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
    logits: Tensor, targets: Tensor, state: Any, weights: Tensor | None = None
) -> Outcome:
    """Cross-entropy of logits (N, C) with target classes (N,); ``IGNORE`` is not scored.

    With weights, (C,), each target's loss is multiplied by that of its class before the mean.

    Raises:
        DataError: A target is not a class.
    """
    check_targets(targets, logits.shape[-1])
    count = (targets != IGNORE).sum()
    total = F.cross_entropy(upcast(logits), targets, weights, ignore_index=IGNORE, reduction="sum")
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
