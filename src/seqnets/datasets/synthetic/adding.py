"""The adding problem."""

from __future__ import annotations

import numpy as np

from seqnets.datasets.sequences.sequences import Sequences
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.typing import Sizes


class Adding(SyntheticData):
    """Adding problem: the sum of two marked numbers among many; regression.

    Each step holds a number, uniform in [0, 1), and a marker: 1 at one random step of the first
    half and one of the second, 0 elsewhere. The target is the sum of the two marked numbers.
    Predicting 1 always has a mean squared error of 1/6 = 0.167 (the literature prints 0.1767).
    The arguments are those of :class:`SyntheticData`.

    References:
        Hochreiter and Schmidhuber, 1997, "Long Short-Term Memory", Neural Computation 9(8).
        Le, Jaitly and Hinton, 2015, "A Simple Way to Initialize Recurrent Networks of Rectified
        Linear Units", arXiv:1504.00941.
    """

    shortest = 2

    @property
    def sizes(self) -> Sizes:
        """Two features per step, one value per sequence."""
        return {"input_size": 2, "output_size": 1}

    def draw(self, random: np.random.Generator, count: int) -> Sequences:
        """``count`` sequences with their sums."""
        half = self.length // 2
        marked = np.stack(
            [random.integers(half, size=count), random.integers(half, self.length, size=count)], 1
        )
        values = random.random((count, self.length), np.float32)
        markers = np.zeros_like(values)
        np.put_along_axis(markers, marked, 1, axis=1)
        sums = np.take_along_axis(values, marked, axis=1).sum(1, keepdims=True)
        return Sequences.stacked(np.stack([values, markers], axis=2), sums)

    def baselines(self) -> dict[str, float]:
        """The mean squared error of always predicting 1 on the test part."""
        return {"always 1": float((self.part("test").y - 1).square().mean())}
