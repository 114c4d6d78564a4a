"""Stratified splits of sequences into training, validation and test part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Protocol

import numpy as np

from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import few, named, shown
from seqnets.errors import DataError, counted


def deal(
    who: str, labels: np.ndarray, fractions: Mapping[Part, float], seed: int
) -> dict[Part, np.ndarray]:
    """Split sequences into parts, stratified by class.

    Args:
        who: Name of the sequences in error messages.
        labels: The class of each sequence, (N,).
        fractions: Fraction of all sequences, and of each class, for each part but training.
        seed: Seed of the random choice.

    Returns:
        Indices of each part's sequences, in ascending order; the rest is the training part.

    Raises:
        DataError: No class has two sequences left.
    """
    rows, left = np.arange(len(labels)), 1.0
    parts: dict[Part, np.ndarray] = {}
    for part, fraction in fractions.items():
        chosen = _choose(who, labels[rows], fraction / left, seed)
        parts[part], rows, left = rows[chosen], rows[~chosen], left - fraction
    return {**parts, "train": rows}


def _choose(who: str, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose a fraction of each class at random.

    Args:
        who: Name of the sequences in error messages.
        labels: The class of each sequence, (N,).
        fraction: The fraction, rounded for each class; of two sequences or more, at least one is
            chosen and one is not.
        seed: Seed of the random choice.

    Returns:
        Boolean mask of the chosen sequences, (N,).

    Raises:
        DataError: No class has two sequences.
    """
    random = np.random.default_rng((seed, 0, 2))  # shuffling is seeded by (seed, epoch)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[:count]] = True
    if not chosen.any():
        raise DataError(
            f"{who}: got {counted(len(labels), 'training sequence')}, no two of one class, "
            "expected enough to hold some of them out."
        )
    return chosen


def deal_groups(
    who: str,
    groups: Sequence[str | None],
    labels: np.ndarray,
    fractions: Mapping[Part, float],
    seed: int,
) -> dict[Part, np.ndarray]:
    """Split sequences into parts by whole groups, stratified by class as far as these allow.

    The groups come in random order. Each part takes those that bring its counts of the classes
    closer to its share of them; if there is one class and enough groups, it is off by half a
    group at most. It takes at least one, and leaves a group of each class in the training part.

    Args:
        who: Name of the groups in error messages.
        groups: The group of each sequence.
        labels: The class of each sequence, (N,).
        fractions: Fraction of all sequences, and of each class, for each part but training.
        seed: Seed of the random order.

    Returns:
        Indices of each part's sequences, in ascending order; the rest is the training part.

    Raises:
        DataError: There are fewer groups than parts, or too few that share their classes.
    """
    contents: dict[str | None, Counter[Any]] = defaultdict(Counter)
    for group, label in zip(groups, labels.tolist(), strict=True):
        contents[group][label] += 1
    names = sorted(contents, key=str)
    if len(names) <= len(fractions):
        raise DataError(
            f"{who}: got {counted(len(names), 'group')} for training, expected at least "
            f"{len(fractions) + 1}: one each for {', '.join(('train', *fractions))}.\n"
            "  A group is not divided. Add sequences of other groups."
        )
    left = _Undealt(contents, fractions)
    order = np.random.default_rng((seed, 0, 2)).permutation(len(names))
    shuffled = [names[place] for place in order]
    # one each before the parts are filled, so that no part takes the last that can be spared
    spared = [name for name in shuffled if left.spares([name])]
    ranked = [sorted(spared, key=partial(left.loss, part)) for part in fractions]
    firsts = next(filter(left.spares, product(*ranked)), None)
    if firsts is None:
        raise DataError(
            f"{who}: got {counted(len(names), 'group')}, expected some for {', '.join(fractions)} "
            "that leave every class, and every label of transcripts, in training too.\n"
            "  A group is not divided. Add other groups with what only few of them have."
        )
    dealt: dict[str | None, Part] = {}
    for part, name in zip(fractions, firsts, strict=True):
        left.take(part, name)
        dealt[name] = part
    for part in fractions:
        for name in shuffled:
            if name not in dealt and left.change(part, name) < 0 and left.spares([name]):
                left.take(part, name)
                dealt[name] = part
    parts = np.array([dealt.get(group, "train") for group in groups])
    return {part: np.flatnonzero(parts == part) for part in (*fractions, "train")}


class _Undealt:
    """The groups of the training part while others are dealt, and what the other parts lack."""

    def __init__(
        self, contents: Mapping[str | None, Counter[Any]], fractions: Mapping[Part, float]
    ) -> None:
        self.contents = contents
        self.holders = Counter(label for content in contents.values() for label in content)
        self.totals = Counter[Any]()
        for content in contents.values():
            self.totals.update(content)
        self.lacks = {
            part: {label: fraction * count for label, count in self.totals.items()}
            for part, fraction in fractions.items()
        }

    def change(self, part: Part, group: str | None) -> float:
        """How much farther from its share a part gets by a group; below 0 if it gets closer.

        The distance is the sum of the classes' squared differences, each over its number.
        """
        lacks = self.lacks[part]
        return sum(
            count * (count - 2 * lacks[label]) / self.totals[label]
            for label, count in self.contents[group].items()
        )

    def loss(self, part: Part, group: str | None) -> float:
        """How much farther a part gets by a group; 0 if it gets closer."""
        return max(0.0, self.change(part, group))

    def spares(self, groups: Sequence[str | None]) -> bool:
        """Whether the others have every class of some distinct groups too."""
        taken = Counter(label for group in groups for label in self.contents[group])
        distinct = len(set(groups)) == len(groups)
        return distinct and all(self.holders[label] > count for label, count in taken.items())

    def take(self, part: Part, group: str | None) -> None:
        """Move a group to a part."""
        for label, count in self.contents[group].items():
            self.holders[label] -= 1
            self.lacks[part][label] -= count


class Grouped(Protocol):
    """A sequence that belongs to a group, and its place."""

    where: str
    group: str | None


def deal_grouped(
    who: str,
    column: str,
    parts: Mapping[Part, Sequence[Grouped]],
    labels: np.ndarray,
    fractions: Mapping[Part, float],
    seed: int,
) -> dict[Part, np.ndarray]:
    """Split the sequences of the training part by whole groups, as :func:`deal_groups` does.

    Args:
        who: Name of the data in error messages.
        column: The column of the groups.
        parts: The sequences of each part, as far as files or a column give them.
        labels: The class of each sequence of the training part, (N,).
        fractions: Fraction of them, and of each class, for each part that has no sequences.
        seed: Seed of the random order.

    Raises:
        DataError: A group is in two parts already, or the groups are too few.
    """
    _refuse_divided(column, parts)
    groups = [sequence.group for sequence in parts["train"]]
    return deal_groups(f"{who}, groups by {column}", groups, labels, fractions, seed)


def _refuse_divided(column: str, parts: Mapping[Part, Sequence[Grouped]]) -> None:
    """Raise DataError if files or a column of parts divide a group between two of them.

    Args:
        column: The column of the groups.
        parts: The sequences of each part.
    """
    firsts: dict[str | None, tuple[Part, Grouped]] = {}
    divided: dict[str | None, str] = {}
    for part, sequences in parts.items():
        for sequence in sequences:
            group, where = sequence.group, sequence.where
            home, first = firsts.setdefault(group, (part, sequence))
            if home != part and group not in divided:
                divided[group] = (
                    f"{where}: {named(column)} is {shown(group)} in the {part} part, expected it "
                    f"in the {home} part alone, where it is at {first.where}."
                )
    if divided:
        raise DataError(
            f"{next(iter(divided.values()))}\n"
            f"  {counted(len(divided), 'group')} in more than one part: {few([*divided])}\n"
            "  Put all sequences of a group into one part, or let dataset.groups choose the parts."
        )
