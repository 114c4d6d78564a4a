"""A vocabulary of pieces of words, and any vocabulary from what a checkpoint keeps of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.bpe import BytePairEncoding
from seqnets.datasets.vocabulary import Vocabulary
from seqnets.typing import Known

_LAST_WORD = re.compile(r"\s\S+\s*\Z")

_LONGEST_WORD = 1 << 16
"""Characters that are kept waiting for the end of a word, at most."""


class PieceVocabulary(Vocabulary):
    """The pieces of a byte pair encoding: every text has ids, and none is unknown.

    Args:
        encoding: Text to ids and back.
    """

    def __init__(self, encoding: BytePairEncoding) -> None:
        super().__init__(encoding.tokens, "words")
        self.encoding, self.unit = encoding, "bpe"

    @property
    def separator(self) -> str:
        """Nothing: a piece that begins a word holds the space before it."""
        return ""

    @cached_property
    def characters(self) -> np.ndarray:
        """The characters of each piece, (V,); one of several bytes belongs to its first."""
        begins = [byte for byte in range(256) if byte & 0xC0 != 0x80]  # no byte within one
        letters = {_letters()[byte] for byte in begins}
        return np.array([sum(letter in letters for letter in token) for token in self.tokens])

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text's pieces, (T,) int64."""
        return torch.tensor(self.encoding.encode(text), dtype=torch.int64)

    def decode(self, ids: Iterable[int] | Tensor | np.ndarray) -> str:
        """Return the text of some ids; bytes that are no whole character become U+FFFD."""
        return self.encoding.decode(int(number) for number in ids)

    def piece(self, number: int) -> str:
        """Return a piece as it stands in a text."""
        return self.decode([number])

    def describe(self) -> dict[str, Any]:
        """Return what :func:`read_vocabulary` takes, as plain values."""
        return {**super().describe(), "tokenizer": self.encoding.to_json()}


def read_vocabulary(known: Known) -> Vocabulary:
    """Return the vocabulary of a language model from what its dataset said.

    Raises:
        DataError: It is none.
        ConfigError: tokenizers is missing, and its pieces are byte pairs.
    """
    if known["unit"] == "bpe":
        return PieceVocabulary(BytePairEncoding.from_json(known["tokenizer"]))
    return Vocabulary(known["vocabulary"], known["unit"])


def spell(token: str) -> str:
    r"""Return a listed piece as it stands in a text; a byte that is no whole character as ``\xc3``.

    No two pieces are spelled alike: none holds a backslash beside a letter.
    """
    numbers = _numbers()
    return bytes(numbers[letter] for letter in token).decode("utf-8", "backslashreplace")


def between_words(blocks: Iterable[str]) -> Iterator[str]:
    """Yield a text that comes in blocks again, cut where its pieces are those of the whole text.

    That is before the white space in front of a word. What has none for very long is cut anywhere.
    """
    begun = ""
    for block in blocks:
        text = begun + block
        last = _LAST_WORD.search(text)
        border = 0 if last is None else last.start()
        if len(text) - border > _LONGEST_WORD:
            border = len(text)
        begun = text[border:]
        if border:
            yield text[:border]
    if begun:
        yield begun


@cache
def _numbers() -> dict[str, int]:
    return {letter: byte for byte, letter in _letters().items()}


def _letters() -> dict[int, str]:
    """How byte pair encodings write each byte (Radford et al., 2019): those that print as such."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {**{b: chr(b) for b in printed}, **{b: chr(256 + n) for n, b in enumerate(others)}}
