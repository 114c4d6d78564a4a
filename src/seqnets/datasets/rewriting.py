"""Tasks made up to see whether a model can write one sequence while it looks at another."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import torch

from seqnets.checks import check_count
from seqnets.datasets.codecs import Codec, TokenCodec
from seqnets.datasets.pairs import PairData, Pairs
from seqnets.datasets.synthetic import SyntheticData
from seqnets.datasets.vocabulary import LINE_END, UNKNOWN


class Rewriting(PairData, SyntheticData):
    """Random sequences of 1 to ``length`` symbols, and what ``rewrite`` makes of them.

    Args:
        length: Most symbols of a source.
        symbols: Kinds of symbols: the numbers from 0.
        **data: The other arguments of :class:`SyntheticData`.
    """

    def __init__(self, length: int = 12, *, symbols: int = 10, **data: Any) -> None:
        super().__init__(length, **data)
        check_count(type(self).__name__, least=2, symbols=symbols)
        self.symbols = symbols

    @abstractmethod
    def rewrite(self, symbols: np.ndarray) -> np.ndarray:
        """Return what is to be written for some symbols, (T,)."""

    @cached_property
    def codecs(self) -> tuple[Codec, Codec]:
        """The same for both sides: end, unknown, and the symbols."""
        codec = TokenCodec([LINE_END, UNKNOWN, *map(str, range(self.symbols))])
        return codec, codec

    def draw(self, random: np.random.Generator, count: int) -> Pairs:
        """Return ``count`` pairs."""
        lengths = random.integers(1, self.length, size=count, endpoint=True)
        drawn = [random.integers(self.symbols, size=length) for length in lengths]
        first = len(self.codecs[0]) - self.symbols  # the id of symbol 0
        written = [self.rewrite(symbols) + first for symbols in drawn]
        return Pairs.of_ids([symbols + first for symbols in drawn], written)

    def baselines(self) -> dict[str, float]:
        """Return how often copying the source is right, and guessing among the symbols."""
        pairs = self.pairs("test")
        batch = pairs.batch(torch.arange(len(pairs)))
        lengths = pairs.lengths.numpy()
        written = pairs.target_lengths.numpy() - 1
        copied = [
            bool(length == size and (x[:length] == y[:size]).all())
            for x, y, length, size in zip(batch.x, batch.y, lengths, written, strict=True)
        ]
        return {
            "copying the source": float(np.mean(copied)),
            "guessing, told how many": float(np.mean(float(self.symbols) ** -written)),
        }


class Sort(Rewriting):
    """Sort some numbers: the decoder has to find the smallest one that it has not yet written."""

    def rewrite(self, symbols: np.ndarray) -> np.ndarray:
        """Return the symbols in their order."""
        return np.sort(symbols)


class Repeat(Rewriting):
    """Say a sequence again, as often as asked: the decoder has to know how far it is.

    Args:
        length: Most symbols of a source.
        times: How often it is to be said.
        **data: The other arguments of :class:`Rewriting`.
    """

    def __init__(self, length: int = 12, *, times: int = 2, **data: Any) -> None:
        super().__init__(length, **data)
        check_count("Repeat", times=times)
        self.times = times

    def rewrite(self, symbols: np.ndarray) -> np.ndarray:
        """Return the symbols again and again."""
        return np.tile(symbols, self.times)
