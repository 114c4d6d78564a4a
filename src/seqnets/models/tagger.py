"""One class for each step of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from seqnets.checks import check_count
from seqnets.layers import CellFactory
from seqnets.models.encoder import Encoder


class SequenceTagger(nn.Module):
    """Classify every step: recurrent stack and an output layer or head.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        num_classes: Number of classes, C.
        output: Builds the output layer from its features and the number of classes: a ``Linear``,
            or a :class:`~seqnets.models.Head` with a loss of its own.
        options: Further arguments of :class:`Encoder`.

    Raises:
        ConfigError: ``num_classes`` is not positive, or the stack's options are invalid.
    """

    passes_options_to = Encoder

    def __init__(
        self,
        cell: CellFactory,
        num_classes: int,
        *,
        output: Callable[[int, int], nn.Module] = nn.Linear,
        **options: Any,
    ) -> None:
        super().__init__()
        check_count("SequenceTagger", num_classes=num_classes)
        self.encoder = Encoder(cell, **options)
        self.output = output(self.encoder.output_size, num_classes)

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of each step's classes, (B, T, C), and the state after the last valid step.

        Args:
            x: Features, (B, T, I), or tokens, (B, T) int64.
            state: The state before the first step; the initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """
        y, state = self.features(x, state, lengths)
        return self.output(y), state

    def features(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """The input of the output layer, (B, T, H), and the state."""
        return self.encoder(x, state, lengths)
