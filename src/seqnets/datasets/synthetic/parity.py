"""The parity problem."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seqnets.checks import check_count
from seqnets.datasets.baselines.counting import majority_baseline
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.errors import ConfigError
from seqnets.typing import Sizes


class Parity(SyntheticData):
    """Parity: whether a string of bits has an odd number of ones; classification.

    Args:
        length: Bits of a sequence, or the maximum if lengths vary.
        shortest_length: Minimum number of bits: lengths are uniform between this and ``length``. If
            omitted, all sequences have ``length`` bits.
        **data: The other arguments of :class:`SyntheticData`.

    Raises:
        ConfigError: A number is below 1, or ``shortest_length`` is above ``length``.
    """

    def __init__(
        self, length: int = 32, *, shortest_length: int | None = None, **data: Any
    ) -> None:
        super().__init__(length, **data)
        self.shortest_length = length if shortest_length is None else shortest_length
        check_count(type(self).__name__, shortest_length=self.shortest_length)
        if self.shortest_length > length:
            raise ConfigError(
                f"Parity: shortest_length is {self.shortest_length}, expected at most length, "
                f"which is {length}."
            )

    @property
    def sizes(self) -> Sizes:
        """Two tokens, two classes."""
        return {"vocab_size": 2, "num_classes": 2}

    def draw(self, random: np.random.Generator, count: int) -> Sequences:
        """``count`` strings of bits with their parities."""
        lengths = random.integers(self.shortest_length, self.length + 1, size=count)
        bits = random.integers(2, size=int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        parities = np.add.reduceat(bits, starts) % 2
        x, steps, y = map(torch.from_numpy, (bits, lengths, parities))
        return Sequences(x, steps, y)

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent class."""
        return majority_baseline(self.part("train").y, self.part("test").y)
