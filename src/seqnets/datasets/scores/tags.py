"""How right the labels of steps are: by step, by label, and by the entities that they mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE

OUTSIDE = "O"
"""The label of a step that is in no entity."""

ENTITY_F1, LABEL_F1 = "entity_f1", "f1_"


class Entity(NamedTuple):
    """Steps ``start`` to ``stop - 1``, and what they name."""

    kind: str
    start: int
    stop: int


def find_entities(labels: Sequence[str]) -> list[Entity]:
    """Return the entities that BIO labels mark, as CoNLL's evaluation sees them.

    ``B-KIND`` begins an entity and ``I-KIND`` goes on with it. An ``I-KIND`` that follows no
    entity of its kind begins one too.

    Args:
        labels: ``O``, ``B-KIND`` or ``I-KIND``, a label a step.

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
    """Raise ConfigError unless tags can be compared by a metric of this name."""
    by_label = metric.startswith(LABEL_F1) and len(metric) > len(LABEL_F1)
    if metric not in ("accuracy", "f1", ENTITY_F1) and not by_label:
        raise ConfigError(
            f"{who}: metric is {metric!r}, expected accuracy, f1, f1_LABEL (of that label alone) "
            "or entity_f1 (of labels B-KIND, I-KIND and O)."
        )


def check_labels(who: str, metric: str, labels: Sequence[str]) -> None:
    """Raise DataError unless a metric makes sense with these labels."""
    odd = next((label for label in labels if not is_bio(label)), None)
    if metric == ENTITY_F1 and odd is not None:
        raise DataError(
            f"{who}: got label {odd!r}, expected {OUTSIDE}, B-KIND and I-KIND.\n"
            "  Entities are marked by such labels; dataset.metric=accuracy takes any."
        )
    if metric.startswith(LABEL_F1) and metric.removeprefix(LABEL_F1) not in labels:
        raise DataError(
            f"{who}: dataset.metric is {metric}, and no label is "
            f"{metric.removeprefix(LABEL_F1)!r}, expected one of {', '.join(labels)}."
        )


def count_entities(
    said: np.ndarray, right: np.ndarray, labels: Sequence[str]
) -> tuple[int, int, int]:
    """Count the entities of sequences that are found, said and right.

    Args:
        said: Numbers of labels, (B, T).
        right: Numbers of labels, (B, T); ``IGNORE`` where a step is not scored, which then is in
            no entity of either side.
        labels: The labels by number.
    """
    hits = found = there = 0
    names = np.array([*labels, OUTSIDE], object)
    outside = right == IGNORE
    for of_said, of_right in zip(
        names[np.where(outside, -1, said)], names[np.where(outside, -1, right)], strict=True
    ):
        ours, theirs = set(find_entities(of_said)), set(find_entities(of_right))
        hits, found, there = hits + len(ours & theirs), found + len(ours), there + len(theirs)
    return hits, found, there


def f1_score(hits: float, said: float, right: float) -> float:
    """The harmonic mean of hits / said and hits / right; 0 where there is nothing at all."""
    return float(2 * hits / (said + right)) if said + right else 0.0


def score_tags(
    metric: str, said: np.ndarray, right: np.ndarray, lengths: np.ndarray, labels: Sequence[str]
) -> float:
    """Score labels of sequences that stand behind each other.

    Args:
        metric: See :func:`check_metric`.
        said: Numbers of labels, (steps,).
        right: Numbers of labels, (steps,), ``IGNORE`` where a step is not scored.
        lengths: Steps of each sequence, (N,).
        labels: The labels by number.
    """
    if metric == ENTITY_F1:
        ends = np.cumsum(lengths)[:-1]
        pairs = zip(np.split(said, ends), np.split(right, ends), strict=True)
        counts = [count_entities(ours[None], theirs[None], labels) for ours, theirs in pairs]
        return f1_score(*np.sum(counts, 0))
    scored = right != IGNORE
    said, right = said[scored], right[scored]
    if metric == "accuracy":
        return float((said == right).mean())
    classes = np.arange(len(labels))[:, None]
    hits = ((said == classes) & (right == classes)).sum(1)
    totals = np.stack([hits, (said == classes).sum(1), (right == classes).sum(1)], 1)
    if metric == "f1":
        return float(np.mean([f1_score(*counts) for counts in totals if counts.any()]))
    return f1_score(*totals[labels.index(metric.removeprefix(LABEL_F1))])
