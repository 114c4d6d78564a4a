"""What a model ends with, where that is more than a matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from seqnets.errors import ShapeError
from seqnets.layers.lengths import valid_steps
from seqnets.typing import IGNORE

HALF = (torch.float16, torch.bfloat16)


class Head(nn.Module, ABC):
    """An output layer that knows its own loss, so that outputs need not exist while it trains.

    A model with one calls it ``output`` and has ``features(x, state, lengths)``, which gives what
    the head takes and the state.

    Attributes:
        num_classes: Classes that a target may be, C; 0 where targets are numbers.
    """

    num_classes: int = 0

    @abstractmethod
    def forward(self, y: Tensor) -> Tensor:
        """What is said of each step, (B, T, K), for features (B, T, H)."""

    @abstractmethod
    def loss(self, y: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss summed over all scored targets, a scalar.

        Args:
            y: Features, (B, T, H).
            targets: What is right, (B, T) or (B, T, K); ``IGNORE`` where nothing is scored.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """

    def scored(self, y: Tensor, targets: Tensor, lengths: Tensor | None) -> Tensor:
        """The targets of features, (B, T), with ``IGNORE`` past the end of each row.

        Raises:
            ShapeError: There is not one for each step.
        """
        if targets.shape != y.shape[:-1]:
            raise ShapeError(
                f"{type(self).__name__}: targets have shape {tuple(targets.shape)}, expected "
                f"{tuple(y.shape[:-1])}, one for each step of the features."
            )
        if lengths is None:
            return targets
        return targets.masked_fill(~valid_steps(targets, lengths), IGNORE)

    def predict(self, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What metrics take, (B, T) classes or (B, T, K): by default what :meth:`forward` says."""
        return self(y)


def strange(targets: Tensor, classes: int) -> Tensor:
    """Which targets are neither one of so many classes nor ``IGNORE``."""
    return ((targets < 0) & (targets != IGNORE)) | (targets >= classes)


def wide(values: Tensor) -> Tensor:
    """Numbers of half precision in float32, in which losses are summed; others as they are."""
    return values.float() if values.dtype in HALF else values
