"""Edit distance of sequences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

Items = Sequence[Hashable]
"""A text as its characters or words, or labels by name or number."""

_AT_ONCE = 256
"""Pairs that are compared together."""


def edit_rate(predictions: Sequence[Items], targets: Sequence[Items]) -> float:
    """The edits per item of the targets, at least 0; NaN if those have no items."""
    items = sum(map(len, targets))
    return int(edit_distances(predictions, targets).sum()) / items if items else float("nan")


def edit_distances(predictions: Sequence[Items], targets: Sequence[Items]) -> np.ndarray:
    """The fewest edits that make each prediction its target, (N,) int64.

    An edit inserts, deletes or substitutes one item.

    References:
        Wagner and Fischer, 1974, "The String-to-String Correction Problem".
    """
    pairs = list(zip(predictions, targets, strict=True))
    blocks = [_distances(pairs[i : i + _AT_ONCE]) for i in range(0, len(pairs), _AT_ONCE)]
    return np.concatenate([np.zeros(0, np.int64), *blocks])


def _distances(pairs: Sequence[tuple[Items, Items]]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    (a, a_sizes), (b, b_sizes) = (_numbered(side, numbers) for side in zip(*pairs, strict=True))
    columns = np.arange(b.shape[1] + 1)
    row = np.tile(columns, (len(pairs), 1))  # from no items to the first ones of the target
    found = b_sizes.copy()
    for read in range(1, a.shape[1] + 1):
        substituted = row[:, :-1] + (a[:, read - 1, None] != b)
        row[:, 1:] = np.minimum(substituted, row[:, 1:] + 1)
        row[:, 0] = read
        # An insertion adds 1 to the column before: a running minimum, once columns are subtracted
        row = np.minimum.accumulate(row - columns, 1) + columns
        ends = a_sizes == read
        found[ends] = row[ends, b_sizes[ends]]
    return found


def _numbered(side: Sequence[Items], numbers: dict[Hashable, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sequences as numbers, (N, longest), and how long each is, (N,)."""
    sizes = np.array([len(items) for items in side], np.int64)
    array = np.zeros((len(side), sizes.max()), np.int64)
    for place, items in enumerate(side):
        array[place, : len(items)] = [numbers.setdefault(item, len(numbers)) for item in items]
    return array, sizes
