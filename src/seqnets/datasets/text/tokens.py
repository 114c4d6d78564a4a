"""A text as one array of token ids, split into training, validation and test part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from seqnets.datasets.parts import Part
from seqnets.datasets.text.bpe import BytePairEncoding
from seqnets.datasets.text.pieces import PieceVocabulary, split_between_words
from seqnets.datasets.text.vocabulary import Vocabulary
from seqnets.errors import DataError


@dataclass(frozen=True)
class Tokens:
    """A text's token ids.

    Attributes:
        ids: All ids, (N,), unsigned integers; may be memory-mapped.
        parts: Start and end of each part in ``ids``.
        vocabulary: The tokens that the ids stand for.
    """

    ids: np.ndarray
    parts: dict[Part, tuple[int, int]]
    vocabulary: Vocabulary

    def part(self, name: Part) -> np.ndarray:
        """The ids of one part, (N,), without copying."""
        start, stop = self.parts[name]
        return self.ids[start:stop]


def cut(tokens: int, fractions: Mapping[Part, float]) -> dict[Part, tuple[int, int]]:
    """Start and end of contiguous parts of a text: training first, then the others.

    Args:
        tokens: Length of the text.
        fractions: Fraction of the text for each part but training, 0..1.
    """
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
    """Build the vocabulary from the training part, then encode all parts.

    Args:
        read: Returns the text from its start, in blocks of characters or words; called more than
            once.
        parts: Start and end of each part, in characters or words.
        unit: Unit of a token: "characters", "words", or "bpe" for byte pairs, which are learned
            from blocks of characters.
        max_vocabulary: Maximum size of the vocabulary.
        store: Allocates the array of ids, given length and dtype; for example on disk.

    Raises:
        DataError: The text changed between two passes.
    """
    if unit == "bpe":
        return _build_byte_pairs(read, parts, max_vocabulary or 0, store)
    train, total = parts["train"][1], max(stop for _, stop in parts.values())
    counts: Counter[str] = Counter()
    others: set[str] = set()
    position = 0
    for block in read():
        inside = max(0, train - position)
        counts.update(block[:inside])
        others.update(block[inside:])
        position += len(block)
    unknown = not counts.keys() >= others
    vocabulary = Vocabulary.build(counts, unit, unknown=unknown, max_size=max_vocabulary)

    ids = store(total, np.min_scalar_type(len(vocabulary) - 1))
    position = 0
    for block in read():
        fitting = block[: max(0, total - position)]
        ids[position : position + len(fitting)] = vocabulary.index(fitting)
        position += len(block)
    if position != total:
        raise _changed(f"{position:,} {unit}", total)
    return Tokens(ids, parts, vocabulary)


def _build_byte_pairs(
    read: Callable[[], Iterable[Any]],
    parts: dict[Part, tuple[int, int]],
    size: int,
    store: Callable[[int, DTypeLike], np.ndarray],
) -> Tokens:
    """Learn byte pairs from the training part, then encode all parts."""
    encoding = BytePairEncoding.train(split_between_words(_slice(read(), *parts["train"])), size)
    # The text is encoded twice, first to count the ids: neither need fit into memory.
    found: dict[Part, tuple[int, int]] = {}
    start = 0
    for part, boundaries in parts.items():
        texts = split_between_words(_slice(read(), *boundaries))
        found[part] = (start, start := start + sum(len(encoding.encode(text)) for text in texts))
    ids = store(start, np.min_scalar_type(len(encoding) - 1))
    position = 0
    for boundaries in parts.values():
        for text in split_between_words(_slice(read(), *boundaries)):
            new = encoding.encode(text)[: start - position]
            ids[position : position + len(new)] = new
            position += len(new)
    if position != start:
        raise _changed(f"{position:,} pieces", start)
    return Tokens(ids, found, PieceVocabulary(encoding))


def _slice(blocks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """Yield the characters ``start`` to ``stop`` of a text in blocks."""
    position = 0
    for block in blocks:
        inside = block[max(0, start - position) : max(0, stop - position)]
        position += len(block)
        if inside:
            yield inside
        if position >= stop:
            return


def _changed(found: str, expected: int) -> DataError:
    return DataError(
        f"The text changed while it was read: got {found}, expected {expected:,}.\n"
        "  Start again when nothing writes to it."
    )
