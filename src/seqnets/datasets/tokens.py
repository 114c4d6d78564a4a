"""A text as one array of token ids, cut into parts for training, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from seqnets.datasets.base import Part
from seqnets.datasets.vocabulary import Unit, Vocabulary
from seqnets.errors import DataError


@dataclass(frozen=True)
class Tokens:
    """A text's token ids.

    Attributes:
        ids: All ids, (N,), unsigned; may be memory-mapped.
        parts: Where each part begins and ends in ``ids``.
        vocabulary: What the ids mean.
    """

    ids: np.ndarray
    parts: dict[Part, tuple[int, int]]
    vocabulary: Vocabulary

    def part(self, name: Part) -> np.ndarray:
        """Return the ids of one part, (N,), without copying."""
        start, stop = self.parts[name]
        return self.ids[start:stop]


def cut(tokens: int, fractions: Mapping[Part, float]) -> dict[Part, tuple[int, int]]:
    """Cut a text into contiguous parts: training first, then the others of these fractions."""
    shares: dict[Part, float] = {"train": 1 - sum(fractions.values()), **fractions}
    parts: dict[Part, tuple[int, int]] = {}
    start, share = 0, 0.0
    for name in shares:
        share += shares[name]
        parts[name] = (start, start := round(share * tokens))
    return parts


def build_tokens(
    read: Callable[[], Iterable[Sequence[str]]],
    parts: dict[Part, tuple[int, int]],
    unit: Unit,
    max_vocabulary: int | None = None,
    store: Callable[[int, DTypeLike], np.ndarray] = np.empty,
) -> Tokens:
    """Make the vocabulary from the training part, then the ids of all parts.

    Args:
        read: Starts reading the text: yields its tokens in blocks. Called twice.
        parts: Where each part begins and ends.
        unit: What a token is.
        max_vocabulary: Most tokens of the vocabulary.
        store: Makes the array for the ids from its length and type, for instance on disk.

    Raises:
        DataError: The text changed between the two readings.
    """
    train, total = parts["train"][1], max(stop for _, stop in parts.values())
    counts: Counter[str] = Counter()
    others: set[str] = set()
    position = 0
    for block in read():
        inside = max(0, train - position)
        counts.update(block[:inside])
        others.update(block[inside:])
        position += len(block)
    vocabulary = Vocabulary.build(counts, unit, others=others, max_size=max_vocabulary)

    ids = store(total, np.min_scalar_type(len(vocabulary) - 1))
    position = 0
    for block in read():
        fitting = block[: max(0, total - position)]
        ids[position : position + len(fitting)] = vocabulary.index(fitting)
        position += len(block)
    if position != total:
        raise DataError(
            f"The text changed while it was read: {position:,} {unit} came, expected {total:,}.\n"
            "  Start again when nothing writes to it."
        )
    return Tokens(ids, parts, vocabulary)
