"""Synthetic tasks of transduction: sorting and repeating."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
import torch

from seqnets.checks import check_count
from seqnets.datasets.sequences.pairs import PairData, Pairs
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.datasets.text.codecs import Codec, TokenCodec
from seqnets.datasets.text.vocabulary import LINE_END, UNKNOWN


class Rewriting(PairData, SyntheticData):
    """Random sequences of 1 to ``length`` symbols, with the targets that ``rewrite`` returns.

    Args:
        length: Maximum length of a source.
        symbols: Number of different symbols, which are the integers from 0.
        **data: The other arguments of :class:`SyntheticData`.
    """

    def __init__(self, length: int = 12, *, symbols: int = 10, **data: Any) -> None:
        super().__init__(length, **data)
        check_count(type(self).__name__, least=2, symbols=symbols)
        self.symbols = symbols

    @abstractmethod
    def rewrite(self, symbols: np.ndarray) -> np.ndarray:
        """The target of some symbols, (T,)."""

    @cached_property
    def codecs(self) -> tuple[Codec, Codec]:
        """The codec of both sides: end, unknown, and the symbols."""
        codec = TokenCodec([LINE_END, UNKNOWN, *map(str, range(self.symbols))])
        return codec, codec

    def draw(self, random: np.random.Generator, count: int) -> Pairs:
        """``count`` pairs."""
        lengths = random.integers(1, self.length, size=count, endpoint=True)
        drawn = [random.integers(self.symbols, size=length) for length in lengths]
        first = len(self.codecs[0]) - self.symbols  # the id of symbol 0
        written = [self.rewrite(symbols) + first for symbols in drawn]
        return Pairs.of_ids([symbols + first for symbols in drawn], written)

    def baselines(self) -> dict[str, float]:
        """The accuracy of copying the source, and of guessing the symbols."""
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
    """Sorting: the decoder has to find the smallest symbol that it has not yet written.

    The arguments are those of :class:`Rewriting`.
    """

    def rewrite(self, symbols: np.ndarray) -> np.ndarray:
        """The symbols in ascending order."""
        return np.sort(symbols)


class Repeat(Rewriting):
    """Repetition of a sequence a fixed number of times: the decoder has to know its position.

    Args:
        length: Maximum length of a source.
        times: Number of repetitions.
        **data: The other arguments of :class:`Rewriting`.
    """

    def __init__(self, length: int = 12, *, times: int = 2, **data: Any) -> None:
        super().__init__(length, **data)
        check_count("Repeat", times=times)
        self.times = times

    def rewrite(self, symbols: np.ndarray) -> np.ndarray:
        """The symbols ``times`` times."""
        return np.tile(symbols, self.times)
