"""Output layers with a loss of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from seqnets.errors import ShapeError
from seqnets.layers.lengths import valid_steps
from seqnets.typing import HALF, IGNORE


class Head(nn.Module, ABC):
    """An output layer with its own loss, so that training need not materialise all outputs.

    A model has it as ``output``, and a method ``features(x, state, lengths)`` that returns the
    head's input and the state.

    Attributes:
        num_classes: Number of classes, C; 0 if targets are numbers.
    """

    num_classes: int = 0

    @abstractmethod
    def forward(self, y: Tensor) -> Tensor:
        """Outputs of each step, (B, T, K), for features (B, T, H)."""

    @abstractmethod
    def loss(self, y: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss summed over all scored targets, a scalar.

        Args:
            y: Features, (B, T, H).
            targets: Targets, (B, T) or (B, T, K); ``IGNORE`` is not scored.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """

    def scored(self, y: Tensor, targets: Tensor, lengths: Tensor | None) -> Tensor:
        """The targets, (B, T), with ``IGNORE`` past the end of each row.

        Raises:
            ShapeError: Targets and features differ in their number of steps.
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
        """Predictions for metrics, (B, T) classes or (B, T, K): by default :meth:`forward`."""
        return self(y)


def invalid_targets(targets: Tensor, classes: int) -> Tensor:
    """A mask of targets that are neither in 0..classes-1 nor ``IGNORE``."""
    return ((targets < 0) & (targets != IGNORE)) | (targets >= classes)


def upcast(values: Tensor) -> Tensor:
    """Convert half precision to float32, in which losses are summed; leave other dtypes."""
    return values.float() if values.dtype in HALF else values
