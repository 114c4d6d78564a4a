"""Stratified splits of sequences into training, validation and test part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seqnets.datasets.base import Part
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
