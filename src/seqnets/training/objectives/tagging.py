"""Tagging: classification of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from seqnets.datasets import DataModule, TaggedData
from seqnets.datasets.scores.tags import (
    ENTITY_F1,
    LABEL_F1,
    check_labels,
    check_metric,
    find_entities,
)
from seqnets.datasets.sequences.step_inputs import Words, read_inputs
from seqnets.errors import DataError
from seqnets.insight.canvas import Picture
from seqnets.insight.timeline import draw_timeline
from seqnets.insight.visible import unmarked
from seqnets.models import ConditionalRandomField, Head
from seqnets.training.metrics import FIGURES, Confusions, EntityScore, LabelScore, Overview
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.rows import class_texts, lengths_of
from seqnets.training.objectives.scoring import check_classes, score_steps
from seqnets.typing import IGNORE, Batch, Known

_SENTENCES = 8


class Tagging(Objective):
    """Cross-entropy of one class per step, or the loss of the model's head.

    The loss of a head that scores whole sequences is divided by the scored steps, too.

    Args:
        metric: What models are compared by: "accuracy"; "f1", averaged over all labels;
            "f1_LABEL", of one label, for rare ones; or "entity_f1", of the entities that BIO labels
            mark, as CoNLL counts them.
    """

    mode = "max"

    def __init__(self, metric: str = "accuracy") -> None:
        check_metric(type(self).__name__, metric)
        self.metric = metric
        self._classes: int | None = None

    def prepare(self, known: Known) -> None:
        """Take the number of classes, which the model has to have too."""
        self._classes = known["sizes"]["num_classes"]

    def check(self, model: nn.Module, data: DataModule) -> None:
        """Raise DataError if the validation part has nothing of what the metric is about."""
        if isinstance(data, TaggedData):
            data.check_scored(self.metric)

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score one label per step; ``IGNORE`` is not scored. Predictions are classes, (B, T)."""
        outcome = score_steps(model, batch, state)
        predicted, output = outcome.predictions, getattr(model, "output", None)
        told = output.num_classes if isinstance(output, Head) else predicted.shape[-1]
        check_classes(told, self._classes)
        classes = predicted.argmax(-1) if predicted.is_floating_point() else predicted
        return outcome._replace(predictions=classes.view(batch.y.shape), targets=batch.y)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Accuracy and F1 over the scored steps, and scores of entities or of one label.

        Raises:
            DataError: The labels do not support the metric.
        """
        classes, labels = known["sizes"]["num_classes"], class_texts(known)
        check_labels("Tagging", self.metric, labels)
        found: dict[str, Metric] = {
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE),
            "f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORE),
        }
        for figure in FIGURES:
            if self.metric == ENTITY_F1:
                found[f"entity_{figure}"] = EntityScore(labels, figure)
            elif self.metric.startswith(LABEL_F1):
                label = self.metric.removeprefix(LABEL_F1)
                found[f"{figure}_{label}"] = LabelScore(labels.index(label), figure)
        return found

    def in_metric(self, baselines: Mapping[str, float], known: Known) -> dict[str, float]:
        """Baselines of datasets without a choice of metrics are accuracies."""
        return super().in_metric(baselines, {"metric": "accuracy", **known})

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """The probability of each step's classes, (B, T, C); for a random field their scores."""
        y, state = model(x, state, lengths)
        if isinstance(getattr(model, "output", None), ConditionalRandomField):
            return {"scores": y}, state
        return {"probabilities": y.softmax(-1)}, state

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per sequence: its words, predicted and true labels, and predicted entities."""
        labels, words = class_texts(known), _words(batch, known)
        rows = []
        for index, (predicted, right) in enumerate(_sequences(outcome, batch)):
            names = [labels[number] for number in predicted]
            target = [None if number == IGNORE else labels[number] for number in right]
            row: Row = {} if words is None else {"tokens": words[index]}
            row["prediction"] = names
            row["target"] = None if all(label is None for label in target) else target
            if self.metric == ENTITY_F1:
                row["entities"] = [entity._asdict() for entity in find_entities(names)]
            rows.append(row)
        return rows

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Predicted and target classes, both (rows, longest); ``IGNORE`` where unknown."""
        numbers: dict[Any, int] = {label: number for number, label in enumerate(class_texts(known))}
        pairs = [_read(f"Row {number}", row, numbers) for number, row in enumerate(rows, start=1)]
        longest = max((len(predicted) for predicted, _ in pairs), default=0)
        predictions = torch.zeros(len(pairs), longest, dtype=torch.int64)
        targets = torch.full_like(predictions, IGNORE)
        for index, (predicted, right) in enumerate(pairs):
            predictions[index, : len(predicted)] = torch.tensor(predicted)
            targets[index, : len(right)] = torch.tensor(right)
        return predictions, targets

    def overviews(self, known: Known) -> Mapping[str, Overview]:
        """The confusion matrix of the scored steps."""
        return Confusions.of(class_texts(known), "step")

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """A few sentences with their labels, or the labels of a sequence's scored steps."""
        labels, words = class_texts(known), _words(batch, known)
        pairs = _sequences(outcome, batch)
        if words is not None:
            show = _with_entities if self.metric == ENTITY_F1 else _with_labels
            chosen = list(zip(words, pairs, strict=True))[:_SENTENCES]
            lines = [
                f"| {show(sentence, right, labels)} | {show(sentence, predicted, labels)} |"
                for sentence, (predicted, right) in chosen
            ]
            return {"labels": "\n".join(["| right | predicted |", "|---|---|", *lines])}
        kinds = [len(set(right[right >= 0].tolist())) for _, right in pairs]
        index = int(np.argmax(kinds))  # a sequence in which something happens
        predicted, right = pairs[index]
        predicted = np.where(right == IGNORE, IGNORE, predicted)
        signal = batch.x[index, : len(predicted)].cpu().numpy() if batch.x.dim() == 3 else None
        return {"labels": draw_timeline({"target": right, "prediction": predicted}, labels, signal)}


def _sequences(outcome: Outcome, batch: Batch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predicted and target classes of each row, up to its length."""
    predicted, right = outcome.predictions.cpu().numpy(), batch.y.cpu().numpy()
    return [(s[:n], r[:n]) for s, r, n in zip(predicted, right, lengths_of(batch), strict=True)]


def _words(batch: Batch, known: Known) -> list[list[str]] | None:
    """The words of each row, up to its length; None if steps are not words."""
    inputs = read_inputs(known)
    if not isinstance(inputs, Words):
        return None
    rows = zip(batch.x.cpu().numpy(), lengths_of(batch), strict=True)
    return [inputs.decode(row[:length]) for row, length in rows]


def _read(who: str, row: Row, numbers: dict[Any, int]) -> tuple[list[int], list[int]]:
    lists: list[list[int]] = []
    for column in ("prediction", "target"):
        given = row.get(column)
        if not isinstance(given, list):
            raise DataError(f"{who}: {column} is {given!r}, expected a list with a label per step.")
        for step, label in enumerate(given):
            unscored = label is None and column == "target"
            if not unscored and (not isinstance(label, str) or label not in numbers):
                raise DataError(
                    f"{who}: {column}[{step}] is {label!r}, expected one of {', '.join(numbers)}."
                )
        lists.append([numbers.get(label, IGNORE) for label in given])
    predicted, right = lists
    if len(predicted) != len(right):
        raise DataError(
            f"{who}: got {len(predicted)} predicted and {len(right)} target labels, expected the "
            f"same number."
        )
    return predicted, right


def _with_entities(words: Sequence[str], classes: np.ndarray, labels: Sequence[str]) -> str:
    """Words as Markdown, with entities in bold, followed by their kinds."""
    found = find_entities([labels[number] if number >= 0 else "O" for number in classes])
    shown, after = [], 0
    for kind, start, stop in found:
        shown += [unmarked(word) for word in words[after:start]]
        shown.append(f"**{' '.join(map(unmarked, words[start:stop]))}** `{kind}`")
        after = stop
    return " ".join([*shown, *map(unmarked, words[after:])])


def _with_labels(words: Sequence[str], classes: np.ndarray, labels: Sequence[str]) -> str:
    """Words as Markdown, each with its label."""
    pairs = zip(words, classes, strict=True)
    return " ".join(f"{unmarked(w)} `{labels[n]}`" if n >= 0 else unmarked(w) for w, n in pairs)
