"""Associative recall."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.errors import ConfigError
from seqnets.typing import Sizes


class Recall(SyntheticData):
    """Associative recall: the value that was paired with a key; classification.

    Distinct keys, each followed by its value, then a delimiter and one of the keys. The label is
    that key's value. Values may repeat. A model without memory must guess one of the values.

    Args:
        length: Pairs of a key and a value; a sequence has two steps for each, and two more.
        keys: Number of possible keys, at least ``length``: ids 0 to ``keys - 1``.
        values: Number of possible values, with the next ids; the last id is the delimiter.
        **data: The other arguments of :class:`SyntheticData`.

    Raises:
        ConfigError: An option is out of range.

    References:
        Graves, Wayne and Danihelka, 2014, "Neural Turing Machines", arXiv:1410.5401.
        Ba et al., 2016, "Using Fast Weights to Attend to the Recent Past", arXiv:1610.06258
        (this form of the task).
    """

    def __init__(self, length: int = 4, *, keys: int = 26, values: int = 10, **data: Any) -> None:
        super().__init__(length, **data)
        check_count("Recall", keys=keys)
        check_count("Recall", least=2, values=values)
        if keys < length:
            raise ConfigError(
                f"Recall: keys is {keys}, expected at least length, which is {length}.\n"
                "  No two keys of a sequence are alike."
            )
        self.keys, self.values = keys, values

    @property
    def sizes(self) -> Sizes:
        """Inputs are keys, values and the delimiter; classes are the values."""
        return {"vocab_size": self.keys + self.values + 1, "num_classes": self.values}

    def draw(self, random: np.random.Generator, count: int) -> Sequences:
        """``count`` sequences with the values to recall."""
        every = np.tile(np.arange(self.keys), (count, 1))
        keys = random.permuted(every, axis=1)[:, : self.length]
        values = random.integers(self.values, size=(count, self.length))
        asked = random.integers(self.length, size=(count, 1))
        x = np.empty((count, 2 * self.length + 2), np.int64)
        x[:, :-2:2], x[:, 1:-2:2] = keys, self.keys + values
        x[:, -2] = self.keys + self.values
        x[:, -1:] = np.take_along_axis(keys, asked, axis=1)
        return Sequences.stacked(x, np.take_along_axis(values, asked, axis=1)[:, 0])

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """A sequence, with keys as k0, k1, ... and values by number."""
        signs = [f"k{key}" for key in range(self.keys)]
        signs += [str(value) for value in range(self.values)] + ["?"]
        return {"sequence": " ".join(signs[token] for token in x.tolist()), "value": str(int(y))}

    def baselines(self) -> dict[str, float]:
        """The accuracy of guessing, and the test accuracy of the last value."""
        test = self.part("test")
        last = test.batch(torch.arange(len(test))).x[:, -3] - self.keys
        return {
            "without memory": 1 / self.values,
            "the last value": float((last == test.y).double().mean()),
        }
