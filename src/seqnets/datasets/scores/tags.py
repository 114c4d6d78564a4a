"""Metrics of tagging: accuracy, F1 of labels and F1 of entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE

OUTSIDE = "O"
"""The label of steps outside of entities."""

ENTITY_F1, LABEL_F1 = "entity_f1", "f1_"


class Entity(NamedTuple):
    """An entity of some kind in steps ``start`` to ``stop - 1``."""

    kind: str
    start: int
    stop: int


def find_entities(labels: Sequence[str]) -> list[Entity]:
    """The entities in BIO labels, by the rules of CoNLL's evaluation.

    ``B-KIND`` begins an entity and ``I-KIND`` continues it. An ``I-KIND`` that does not continue
    an entity of its kind begins one.

    Args:
        labels: ``O``, ``B-KIND`` or ``I-KIND`` for each step.

    References:
        Tjong Kim Sang and Buchholz, 2000, "Introduction to the CoNLL-2000 Shared Task: Chunking".
    """
    found: list[Entity] = []
    open_kind = None
    for step, label in enumerate(labels):
        mark, _, kind = label.partition("-")
        if label == OUTSIDE:
            open_kind = None
        elif mark == "I" and kind == open_kind:
            found[-1] = found[-1]._replace(stop=step + 1)
        else:
            found.append(Entity(kind, step, step + 1))
            open_kind = kind
    return found


def is_bio(label: str) -> bool:
    """Whether a label is ``O``, ``B-KIND`` or ``I-KIND``."""
    return label == OUTSIDE or (label[:2] in ("B-", "I-") and len(label) > 2)


def check_metric(who: str, metric: str) -> None:
    """Raise ConfigError unless the metric is one of tagging."""
    by_label = metric.startswith(LABEL_F1) and len(metric) > len(LABEL_F1)
    if metric not in ("accuracy", "f1", ENTITY_F1) and not by_label:
        raise ConfigError(
            f"{who}: metric is {metric!r}, expected accuracy, f1, f1_LABEL (of that label alone) "
            "or entity_f1 (of labels B-KIND, I-KIND and O)."
        )


def check_labels(who: str, metric: str, labels: Sequence[str]) -> None:
    """Raise DataError unless the metric suits these labels."""
    odd = next((label for label in labels if not is_bio(label)), None)
    if metric == ENTITY_F1 and odd is not None:
        raise DataError(
            f"{who}: got label {odd!r}, expected {OUTSIDE}, B-KIND and I-KIND.\n"
            "  Entities need such labels; dataset.metric=accuracy takes any."
        )
    if metric.startswith(LABEL_F1) and metric.removeprefix(LABEL_F1) not in labels:
        raise DataError(
            f"{who}: metric is {metric}, and no label is {metric.removeprefix(LABEL_F1)!r}, "
            f"expected one of {', '.join(labels)}."
        )


def count_entities(
    predicted: np.ndarray, true: np.ndarray, labels: Sequence[str]
) -> tuple[int, int, int]:
    """Count the entities of sequences: correctly predicted, predicted, and true ones.

    Args:
        predicted: Label numbers, (B, T).
        true: Label numbers, (B, T); a step with ``IGNORE`` is outside of entities on both sides.
        labels: The labels, indexed by number.
    """
    hits = predictions = truths = 0
    names = np.array([*labels, OUTSIDE], object)
    ignored = true == IGNORE
    for predicted_row, true_row in zip(
        names[np.where(ignored, -1, predicted)], names[np.where(ignored, -1, true)], strict=True
    ):
        ours, theirs = set(find_entities(predicted_row)), set(find_entities(true_row))
        hits += len(ours & theirs)
        predictions += len(ours)
        truths += len(theirs)
    return hits, predictions, truths


def f1_score(hits: float, predictions: float, truths: float) -> float:
    """The harmonic mean of precision and recall; 0 if there is nothing to count."""
    total = predictions + truths
    return float(2 * hits / total) if total else 0.0


def score_tags(
    metric: str, predicted: np.ndarray, true: np.ndarray, lengths: np.ndarray, labels: Sequence[str]
) -> float:
    """The score of concatenated sequences of labels.

    Args:
        metric: See :func:`check_metric`.
        predicted: Label numbers, (steps,).
        true: Label numbers, (steps,), ``IGNORE`` where a step is not scored.
        lengths: Length of each sequence, (N,).
        labels: The labels, indexed by number.
    """
    if metric == ENTITY_F1:
        ends = np.cumsum(lengths)[:-1]
        pairs = zip(np.split(predicted, ends), np.split(true, ends), strict=True)
        counts = [count_entities(ours[None], theirs[None], labels) for ours, theirs in pairs]
        return f1_score(*np.sum(counts, 0))
    scored = true != IGNORE
    predicted, true = predicted[scored], true[scored]
    if metric == "accuracy":
        return float((predicted == true).mean())
    classes = np.arange(len(labels))[:, None]
    hits = ((predicted == classes) & (true == classes)).sum(1)
    totals = np.stack([hits, (predicted == classes).sum(1), (true == classes).sum(1)], 1)
    if metric == "f1":
        return float(np.mean([f1_score(*counts) for counts in totals if counts.any()]))
    return f1_score(*totals[labels.index(metric.removeprefix(LABEL_F1))])
