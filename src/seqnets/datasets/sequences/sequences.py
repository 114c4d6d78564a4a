"""Separate sequences of any length, concatenated in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from seqnets.datasets.parts import Part
from seqnets.datasets.scaling import Scaling
from seqnets.typing import IGNORE, Batch


@dataclass(frozen=True)
class Sequences:
    """N sequences, concatenated.

    Attributes:
        x: All their steps: features (steps, I) float32, frames (steps, C, height, width) float32,
            or tokens (steps,) int64, with their spelling (steps, 1 + bytes).
        lengths: Length of each sequence, (N,) int64, at least 1.
        y: Targets: a label per sequence (N,) int64; values (N, K) float32; a transcript's labels
            (N, U) int64, from 1, padded with ``IGNORE``; or, if ``stepwise``, a label per step
            (steps,) int64, or values or a frame per step, as in ``x``; ``IGNORE`` where there is
            none.
        stepwise: Whether each step has its own target.
        ids: Identifiers from the file, plain values; None if it has none.
        texts: Verbatim texts from the file, or lists of them, by column, such as "source".
        gaps: Whether features may be missing, NaN.
        weights: How much each sequence counts in the loss, (N,), at least 0; only their proportions
            matter. None if all count alike.
        next_steps: Whether the target of a step is the step after it.
    """

    next_steps: ClassVar[bool] = False
    x: Tensor
    lengths: Tensor
    y: Tensor
    stepwise: bool = False
    ids: list[Any] | None = None
    texts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    gaps: bool = False
    weights: Tensor | None = None

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray], labels: Sequence[int]) -> Self:
        """Concatenate sequences, each (T,) or (T, I), with a class number each."""
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return cls(torch.from_numpy(np.concatenate(sequences)), lengths, torch.tensor(labels))

    @classmethod
    def stacked(
        cls, x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, stepwise: bool = False
    ) -> Self:
        """Sequences of one length: x (N, T, ...), y (N, ...) or, stepwise, (N, T, ...)."""
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        lengths = torch.full(x.shape[:1], x.shape[1])
        return cls(x.flatten(0, 1), lengths, y.flatten(0, 1) if stepwise else y, stepwise)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Tensor:
        """Offset of each sequence in ``x``, (N,) int64."""
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def ragged(self) -> bool:
        """Whether the lengths differ."""
        return bool((self.lengths != self.lengths[0]).any())

    @property
    def transcribed(self) -> bool:
        """Whether each target is a transcript: labels in order, but without their places."""
        return self.y.dim() > 1 and not self.stepwise and not self.y.is_floating_point()

    @cached_property
    def target_lengths(self) -> Tensor:
        """Number of labels in each transcript, (N,) int64."""
        return (self.y != IGNORE).sum(1)

    @cached_property
    def relative_weights(self) -> Tensor | None:
        """The weights over their mean, (N,) float32, by which the scale of a loss stays."""
        if self.weights is None:
            return None
        weights = self.weights.double()
        return (weights / weights.mean()).float()

    def batch(self, rows: Tensor) -> Batch:
        """A batch of sequences, padded to the longest of them, with 0 and ``IGNORE``.

        Args:
            rows: Indices of the sequences, (B,) int64.
        """
        lengths = self.lengths[rows]
        steps = torch.arange(max(lengths.tolist(), default=0))
        outside = steps >= lengths[:, None]
        positions = (self.starts[rows, None] + steps).clamp_(max=len(self.x) - 1)
        x = self.x[positions]
        x[outside] = 0
        y = self.y[positions] if self.stepwise else self.y[rows]
        if self.stepwise:
            y[outside] = IGNORE
        elif self.transcribed:
            y = y[:, : max([1, *self.target_lengths[rows].tolist()])]
        weights = None if self.relative_weights is None else self.relative_weights[rows]
        return Batch(x, y, lengths if self.ragged else None, weights=weights)

    def select(self, rows: Tensor) -> Self:
        """The sequences with these indices, in this order; not for stepwise targets."""
        pieces = [self.x[self.starts[row] :][: self.lengths[row]] for row in rows]
        ids = None if self.ids is None else [self.ids[row] for row in rows]
        return replace(
            self,
            x=torch.cat([self.x[:0], *pieces]),
            lengths=self.lengths[rows],
            y=self.y[rows],
            ids=ids,
            texts={
                column: [of_file[row] for row in rows] for column, of_file in self.texts.items()
            },
            weights=None if self.weights is None else self.weights[rows],
        )


@dataclass(frozen=True)
class Splits:
    """The three parts of a dataset of sequences.

    Attributes:
        parts: The sequences of each part.
        labels: The class names, indexed by class number, if any.
        scaling: The standardisation of the features, if any.
    """

    parts: dict[Part, Sequences]
    labels: list[str] | None = None
    scaling: Scaling | None = None


class NextSteps(Sequences):
    """Sequences as their own targets: each step is predicted from those before it.

    ``y`` has the memory of ``x``. A batch has one step less than its sequences. The arguments are
    those of :class:`Sequences`.
    """

    next_steps = True

    def batch(self, rows: Tensor) -> Batch:
        """All steps but the last as inputs, and all but the first as targets."""
        x, y, lengths, *_ = super().batch(rows)
        return Batch(x[:, :-1], y[:, 1:], None if lengths is None else lengths - 1)
