"""Dyck languages: words of balanced brackets."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.errors import ConfigError
from seqnets.typing import IGNORE, Sizes

OPENING, CLOSING = "([{<", ")]}>"
"""How the first kinds are shown; further ones with their numbers."""


class Dyck(SyntheticData):
    """Balanced brackets of several kinds: the kind of the innermost open bracket; tagging.

    The label of a step is the kind of the bracket that was opened last and is not yet closed. Only
    steps that need memory are scored: closing brackets after which another one is open. All kinds
    are equally likely, so a model without memory must guess; a perfect one keeps a stack.

    Each step opens or closes a bracket with equal probability, if it may do both: at depth 0 it
    opens, at the maximum depth it closes, and it closes once the rest of the word is needed for
    that.

    Args:
        length: Brackets of a word, an even number of at least 4.
        kinds: Kinds of brackets: ids 0 to ``kinds - 1`` open, the next ``kinds`` close.
        depth: Maximum nesting depth, at least 2.
        **data: The other arguments of :class:`SyntheticData`.

    Raises:
        ConfigError: An option is out of range.

    References:
        Hewitt et al., 2020, "RNNs can generate bounded hierarchical languages with optimal memory",
        arXiv:2010.07515, which calls the language Dyck-(k, m) and predicts every bracket.
    """

    shortest = 4

    def __init__(self, length: int = 64, *, kinds: int = 4, depth: int = 4, **data: Any) -> None:
        super().__init__(length, **data)
        check_count("Dyck", least=2, kinds=kinds, depth=depth)
        if length % 2:
            raise ConfigError(
                f"Dyck: length is {length}, expected an even number.\n"
                "  Every bracket that opens is closed."
            )
        self.kinds, self.depth = kinds, depth

    @property
    def sizes(self) -> Sizes:
        """Inputs are opening and closing brackets; classes are their kinds."""
        return {"vocab_size": 2 * self.kinds, "num_classes": self.kinds}

    def draw(self, random: np.random.Generator, count: int) -> Sequences:
        """``count`` words with a label per step."""
        rows = np.arange(count)
        stack = np.zeros((count, self.depth), np.int64)
        depth = np.zeros(count, np.int64)
        x = np.empty((count, self.length), np.int64)
        y = np.full_like(x, IGNORE)
        for step in range(self.length):
            may_open = depth < min(self.depth, self.length - step)
            opens = (depth == 0) | (may_open & (random.random(count) < 0.5))
            drawn = random.integers(self.kinds, size=count)
            stack[rows[opens], depth[opens]] = drawn[opens]
            x[:, step] = np.where(opens, drawn, self.kinds + stack[rows, depth - 1])
            depth += np.where(opens, 1, -1)
            asked = ~opens & (depth > 0)
            y[asked, step] = stack[rows[asked], depth[asked] - 1]
        return Sequences.stacked(x, y, stepwise=True)

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """A word and, below each scored step, the kind that is open."""
        further = range(len(OPENING), self.kinds)
        opening = [*OPENING[: self.kinds], *(f"({kind}" for kind in further)]
        closing = [*CLOSING[: self.kinds], *(f"{kind})" for kind in further)]
        signs = opening + closing
        return {
            "word": "".join(signs[token] for token in x.tolist()),
            "open": "".join("." if kind == IGNORE else signs[kind] for kind in y.tolist()),
        }

    def baselines(self) -> dict[str, float]:
        """The accuracy of a model without memory."""
        return {"without memory": 1 / self.kinds}
