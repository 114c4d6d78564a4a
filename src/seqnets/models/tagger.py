"""One class for each step of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from seqnets.checks import check_count
from seqnets.layers import CellFactory
from seqnets.models.encoder import Encoder


class SequenceTagger(nn.Module):
    """Tell the class of every step: recurrent stack, output a step, softmax if it is a matrix.

    Args:
        cell: Makes the stack's cells: a cell's class or a partial of it.
        num_classes: Classes there are, C.
        output: Makes the output layer from its features and the classes: a ``Linear``, or a
            :class:`~seqnets.models.Head` with a loss of its own.
        options: What :class:`Encoder` takes beside the cell.

    Raises:
        ConfigError: There is no class, or the stack cannot be built as asked.
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
            state: The state before the first step; that of a beginning if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """
        y, state = self.features(x, state, lengths)
        return self.output(y), state

    def features(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """What the output layer is given, (B, T, H), and the state."""
        return self.encoder(x, state, lengths)
