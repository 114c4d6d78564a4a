"""A text as one array of token ids, cut into parts for training, validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from seqnets.datasets.base import Part
from seqnets.datasets.bpe import BytePairEncoding
from seqnets.datasets.pieces import PieceVocabulary, between_words
from seqnets.datasets.vocabulary import Vocabulary
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
    unit: str,
    max_vocabulary: int | None = None,
    store: Callable[[int, DTypeLike], np.ndarray] = np.empty,
) -> Tokens:
    """Make the vocabulary from the training part, then the ids of all parts.

    Args:
        read: Starts reading the text: yields its characters or words in blocks. Called more than
            once.
        parts: Where each part begins and ends.
        unit: What a token is: characters, words, or bpe, whose pieces are made of characters.
        max_vocabulary: Most tokens of the vocabulary.
        store: Makes the array for the ids from its length and type, for instance on disk.

    Raises:
        DataError: The text changed between the two readings.
    """
    if unit == "bpe":
        return _build_pieces(read, parts, max_vocabulary or 0, store)
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
        raise _changed(f"{position:,} {unit}", total)
    return Tokens(ids, parts, vocabulary)


def _build_pieces(
    read: Callable[[], Iterable[Any]],
    parts: dict[Part, tuple[int, int]],
    size: int,
    store: Callable[[int, DTypeLike], np.ndarray],
) -> Tokens:
    """Learn pieces from the training part, then make the ids of all parts."""
    encoding = BytePairEncoding.train(between_words(_within(read(), *parts["train"])), size)
    # How many ids there are is known once all are made: the text is encoded twice, so that
    # memory bounds neither it nor them.
    found: dict[Part, tuple[int, int]] = {}
    start = 0
    for part, borders in parts.items():
        texts = between_words(_within(read(), *borders))
        found[part] = (start, start := start + sum(len(encoding.encode(text)) for text in texts))
    ids = store(start, np.min_scalar_type(len(encoding) - 1))
    position = 0
    for borders in parts.values():
        for text in between_words(_within(read(), *borders)):
            new = encoding.encode(text)[: start - position]
            ids[position : position + len(new)] = new
            position += len(new)
    if position != start:
        raise _changed(f"{position:,} pieces", start)
    return Tokens(ids, found, PieceVocabulary(encoding))


def _within(blocks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """Yield what stands between two places of a text that comes in blocks."""
    position = 0
    for block in blocks:
        inside = block[max(0, start - position) : max(0, stop - position)]
        position += len(block)
        if inside:
            yield inside
        if position >= stop:
            return


def _changed(came: str, expected: int) -> DataError:
    return DataError(
        f"The text changed while it was read: got {came}, expected {expected:,}.\n"
        "  Start again when nothing writes to it."
    )
