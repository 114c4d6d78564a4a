"""The base class of synthetic tasks, which are reproducible from a seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from seqnets.checks import check_count
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.sequences import Sequences, Splits


class SyntheticData(SequenceData):
    """A fixed set of random sequences, which a subclass's ``draw`` returns.

    Args:
        length: Length of the task, in steps.
        train_size: Number of training sequences; each epoch shuffles the same ones.
        test_size: Number of validation sequences, and of test sequences.
        batch_size: Sequences in a batch of each process.
        seed: Determines the sequences and their order.
    """

    shortest = 1
    """The least ``length`` that makes a task."""

    def __init__(
        self,
        length: int = 100,
        train_size: int = 10_000,
        test_size: int = 1_000,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        who = type(self).__name__
        check_count(who, least=self.shortest, length=length)
        check_count(who, train_size=train_size, test_size=test_size)
        self.length, self.train_size, self.test_size = length, train_size, test_size

    @abstractmethod
    def draw(self, random: np.random.Generator, count: int) -> Sequences:
        """``count`` random sequences of the task."""

    def read_splits(self) -> Splits:
        """Draw the sequences of all parts."""
        draws = random_parts(self.train_size, self.test_size, self.seed)
        return Splits({part: self.draw(random, count) for part, random, count in draws})


def random_parts(
    train_size: int, test_size: int, seed: int
) -> Iterator[tuple[Part, np.random.Generator, int]]:
    """Yield each part with random numbers of its own, and how many sequences to draw from them.

    Validation has as many as the test.
    """
    for number, part in enumerate(PARTS):
        # The 1 makes these independent of the shuffling, which is seeded by (seed, epoch).
        random = np.random.default_rng((seed, number, 1))
        yield part, random, train_size if part == "train" else test_size
