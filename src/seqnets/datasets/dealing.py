"""Which sequences are for training, for validation and for the test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seqnets.datasets.base import Part
from seqnets.errors import DataError, counted


def deal(
    who: str, labels: np.ndarray, fractions: Mapping[Part, float], seed: int
) -> dict[Part, np.ndarray]:
    """Deal sequences out to parts; each gets its share of every class.

    Args:
        who: What error messages call the sequences.
        labels: The class of each sequence, (N,).
        fractions: The share of all sequences, of each class, that each part gets.
        seed: Decides which ones.

    Returns:
        The numbers of each part's sequences, in their order, and of those that stay for training.

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
    """Choose a share of each class.

    Args:
        who: What error messages call the sequences.
        labels: The class of each sequence, (N,).
        fraction: The share, rounded in each class; of a class of at least two sequences at least
            one is chosen and one is not.
        seed: Decides which ones.

    Returns:
        Whether each sequence is chosen, (N,).

    Raises:
        DataError: No class has two sequences.
    """
    random = np.random.default_rng((seed, 0, 2))  # the shuffling draws from (seed, epoch)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        chosen[members[:count]] = True
    if not chosen.any():
        raise DataError(
            f"{who}: got {counted(len(labels), 'training sequence')}, no two of one class, "
            "expected enough to set some of them aside."
        )
    return chosen
