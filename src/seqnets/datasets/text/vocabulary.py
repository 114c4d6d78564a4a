"""Vocabularies: text to token ids and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_choice
from seqnets.errors import DataError

Unit = Literal["characters", "words"]
"""The unit of a token."""

PLAIN_UNITS: tuple[Unit, ...] = get_args(Unit)

UNKNOWN = "<unk>"
"""The token for everything outside the vocabulary."""

LINE_END = "<eos>"
"""The word that marks the end of a line."""


def split(text: str, unit: str) -> Sequence[str]:
    """Split a text into words and line ends, or into characters.

    Words are separated by white space; each line end becomes the word ``<eos>``.
    """
    return text.replace("\n", f" {LINE_END} ").split() if unit == "words" else text


def by_frequency(counts: Counter[str], min_count: int) -> list[str]:
    """The tokens that occur often enough, the most frequent first, then by code points."""
    kept = (token for token, count in counts.items() if count >= min_count)
    return sorted(kept, key=lambda token: (-counts[token], token))


class Vocabulary:
    """The tokens a model knows; a token's id is its index in the list.

    Unlisted tokens become ``<unk>`` if the list has that token, and are an error otherwise.

    Args:
        tokens: Distinct tokens, by id.
        unit: Whether text is split into characters or words.

    Raises:
        DataError: The list is empty or has a token twice, or the unit is characters and a token is
            not a single character.
    """

    def __init__(self, tokens: Iterable[str], unit: str = "characters") -> None:
        check_choice(type(self).__name__, PLAIN_UNITS, unit=unit)
        self.tokens = list(tokens)
        self.unit = unit
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self.unknown = self._ids.get(UNKNOWN)
        if not self.tokens or len(self._ids) < len(self.tokens):
            raise DataError(
                f"Vocabulary: got {len(self.tokens)} tokens, {len(self._ids)} of them distinct, "
                "expected one or more, all distinct."
            )
        if unit == "characters" and any(len(t) != 1 for t in self.tokens if t != UNKNOWN):
            odd = next(t for t in self.tokens if len(t) != 1 and t != UNKNOWN)
            raise DataError(f"Vocabulary: got token {odd!r}, expected single characters.")

    @classmethod
    def build(
        cls,
        counts: Counter[str],
        unit: str,
        *,
        unknown: bool = False,
        max_size: int | None = None,
        min_count: int = 1,
    ) -> Vocabulary:
        """Build a vocabulary from the tokens of a training text.

        Characters are sorted by code point, words by frequency. Words always have ``<unk>``, as
        id 0; characters have it only if asked for, or if ``max_size`` is exceeded.

        Args:
            counts: How often each token occurs in the training text.
            unit: Unit of a token.
            unknown: Whether other texts may have other characters.
            max_size: Maximum number of tokens, ``<unk>`` included; the most frequent are kept.
            min_count: How often a token must occur to be kept.
        """
        kept = [token for token in by_frequency(counts, min_count) if token != UNKNOWN]
        cut = max_size is not None and len(kept) > max_size
        special: list[str] = []
        if unit == "words" or cut or unknown:
            special = [UNKNOWN]
            kept = kept if max_size is None else kept[: max_size - 1]
        return cls(special + (sorted(kept) if unit == "characters" else kept), unit)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def separator(self) -> str:
        """The text between two tokens."""
        return "" if self.unit == "characters" else " "

    def encode(self, text: str) -> Tensor:
        """The ids of a text's tokens, (T,) int64.

        Raises:
            DataError: A token is not in the vocabulary, which has no ``<unk>``.
        """
        return torch.from_numpy(self.index(split(text, self.unit)))

    def index(self, tokens: Sequence[str]) -> np.ndarray:
        """The ids of tokens that :func:`split` returned, (T,) int64.

        Raises:
            DataError: A token is not in the vocabulary, which has no ``<unk>``.
        """
        if isinstance(tokens, str):
            codes = np.frombuffer(tokens.encode("utf-32-le", "surrogatepass"), np.uint32)
            ids = self._by_code_point[np.minimum(codes, len(self._by_code_point) - 1)]
        else:
            unknown = -1 if self.unknown is None else self.unknown
            ids = np.fromiter((self._ids.get(t, unknown) for t in tokens), np.int64, len(tokens))
        if self.unknown is None and (ids < 0).any():
            place = int(np.argmax(ids < 0))
            raise DataError(
                f"Vocabulary: token {tokens[place]!r} at position {place:,} is not among the "
                f"{len(self):,} known {self.unit}.\n"
                "  They are those of the training text.\n"
                "  Leave it out."
            )
        return ids

    def piece(self, number: int) -> str:
        """A token's text by id, including the separator that follows it."""
        shown = self._shown[number]
        return shown if shown == "\n" else shown + self.separator

    def describe(self) -> dict[str, Any]:
        """The tokens, as plain values."""
        return {"vocabulary": list(self.tokens)}

    def decode(self, ids: Iterable[int] | Tensor | np.ndarray) -> str:
        """Decode ids to text.

        Characters follow each other, an unknown one as U+FFFD; words are joined by one space and
        each ``<eos>`` is a line end.
        """
        numbers = ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids
        text = self.separator.join(self._shown[number] for number in numbers)
        return text if self.unit == "characters" else re.sub(" ?\n ?", "\n", text)

    @cached_property
    def _shown(self) -> list[str]:
        shown = {UNKNOWN: "\ufffd"} if self.unit == "characters" else {LINE_END: "\n"}
        return [shown.get(token, token) for token in self.tokens]

    @cached_property
    def _by_code_point(self) -> np.ndarray:
        # One entry past the highest known code point, used for all code points above it.
        known = {ord(token): number for token, number in self._ids.items() if token != UNKNOWN}
        table = np.full(max(known, default=0) + 2, -1 if self.unknown is None else self.unknown)
        table[list(known)] = list(known.values())
        return table
