"""The copy problem."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqnets.checks import check_count
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.typing import IGNORE, Sizes


class Copy(SyntheticData):
    """Copy problem: repeat some symbols after a long delay; tagging.

    K random symbols, ``length - 1`` blanks, one delimiter, K blanks. The labels of the last K steps
    are the symbols in order, and only those steps are scored, as blanks are trivial to predict. A
    model without memory guesses one of the symbols.

    Args:
        length: Steps between the last symbol and the first answer.
        symbols: Kinds of symbols: ids 0 to ``symbols - 1``; then the blank, then the delimiter.
        copied: Number of symbols to repeat, K.
        **data: The other arguments of :class:`SyntheticData`.

    References:
        Arjovsky, Shah and Bengio, 2016, "Unitary Evolution Recurrent Neural Networks",
        arXiv:1511.06464, which scores every step.
    """

    def __init__(
        self, length: int = 100, *, symbols: int = 8, copied: int = 10, **data: Any
    ) -> None:
        super().__init__(length, **data)
        check_count(type(self).__name__, symbols=symbols, copied=copied)
        self.symbols, self.copied = symbols, copied

    @property
    def sizes(self) -> Sizes:
        """Inputs are symbols, blank and delimiter; classes are the symbols."""
        return {"vocab_size": self.symbols + 2, "num_classes": self.symbols}

    def draw(self, random: np.random.Generator, count: int) -> Sequences:
        """``count`` sequences with a label per step."""
        steps = self.length + 2 * self.copied
        symbols = random.integers(self.symbols, size=(count, self.copied))
        x = np.full((count, steps), self.symbols)
        x[:, : self.copied] = symbols
        x[:, -self.copied - 1] = self.symbols + 1
        y = np.full((count, steps), IGNORE)
        y[:, -self.copied :] = symbols
        return Sequences.stacked(x, y, stepwise=True)

    def baselines(self) -> dict[str, float]:
        """The accuracy of a model without memory."""
        return {"without memory": 1 / self.symbols}
