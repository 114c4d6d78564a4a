"""Vocabularies of byte pairs, and vocabularies restored from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.text.bpe import BytePairEncoding
from seqnets.datasets.text.vocabulary import Vocabulary
from seqnets.typing import Known

_LAST_WORD = re.compile(r"\s\S+\s*\Z")

_LONGEST_WORD = 1 << 16
"""Maximum number of characters to buffer until a word ends."""


class PieceVocabulary(Vocabulary):
    """The tokens of a byte pair encoding, which can encode any text.

    Args:
        encoding: The encoding.
    """

    def __init__(self, encoding: BytePairEncoding) -> None:
        super().__init__(encoding.tokens, "words")
        self.encoding, self.unit = encoding, "bpe"

    @property
    def separator(self) -> str:
        """Empty: a token that begins a word contains the space before it."""
        return ""

    @cached_property
    def characters(self) -> np.ndarray:
        """Number of characters in each token, (V,); a character counts where its first byte is."""
        first_bytes = [byte for byte in range(256) if byte & 0xC0 != 0x80]  # no continuation bytes
        letters = {_letters()[byte] for byte in first_bytes}
        return np.array([sum(letter in letters for letter in token) for token in self.tokens])

    def encode(self, text: str) -> Tensor:
        """The ids of a text's tokens, (T,) int64."""
        return torch.tensor(self.encoding.encode(text), dtype=torch.int64)

    def decode(self, ids: Iterable[int] | Tensor | np.ndarray) -> str:
        """The text of some ids; incomplete characters become U+FFFD."""
        return self.encoding.decode(int(number) for number in ids)

    def piece(self, number: int) -> str:
        """A token's text by id."""
        return self.decode([number])

    def describe(self) -> dict[str, Any]:
        """The plain values from which :func:`read_vocabulary` restores the vocabulary."""
        return {**super().describe(), "tokenizer": self.encoding.to_json()}


def read_vocabulary(known: Known) -> Vocabulary:
    """Restore the vocabulary of a language model from its dataset's metadata.

    Raises:
        DataError: The metadata do not describe a vocabulary.
        ConfigError: The tokens are byte pairs and the library tokenizers is not installed.
    """
    if known["unit"] == "bpe":
        return PieceVocabulary(BytePairEncoding.from_json(known["tokenizer"]))
    return Vocabulary(known["vocabulary"], known["unit"])


def spell(token: str) -> str:
    r"""The text of a token in the encoding's list; incomplete characters as ``\xc3``.

    No two tokens have the same text, as none contains a backslash next to a letter.
    """
    numbers = _bytes_of_letters()
    return bytes(numbers[letter] for letter in token).decode("utf-8", "backslashreplace")


def split_between_words(blocks: Iterable[str]) -> Iterator[str]:
    """Yield a text in blocks that have, encoded one by one, the ids of the whole text.

    They end before the white space in front of a word; very long text without any is cut anywhere.
    """
    rest = ""  # a word that the next block may continue
    for block in blocks:
        text = rest + block
        last = _LAST_WORD.search(text)
        end = 0 if last is None else last.start()
        if len(text) - end > _LONGEST_WORD:
            end = len(text)
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        yield rest


@cache
def _bytes_of_letters() -> dict[str, int]:
    return {letter: byte for byte, letter in _letters().items()}


def _letters() -> dict[int, str]:
    """The letter that stands for each byte in a token (Radford et al., 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + n) for n, b in enumerate(others)}}
