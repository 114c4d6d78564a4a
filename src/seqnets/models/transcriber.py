"""Labels of an unsegmented sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from seqnets.checks import check_count
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, ConvFront1d, Linear
from seqnets.layers.checks import check_reads_no_times
from seqnets.models.encoder import Encoder


class Transcriber(nn.Module):
    """Transcribe sequences: convolutions over time, recurrent stack, a label or none per frame.

    A frame is a step after the convolutions, whose stride shortens a sequence. It is trained by
    :func:`~seqnets.models.ctc_loss`.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        num_classes: Number of classes, C: the labels, and ``BLANK`` for none.
        input_size: Features of a step, I, if the input is features.
        filters: Output features of each convolution, first to last; no convolutions if empty. They
            read features, not tokens.
        kernel_size: Steps in each convolution's window: one number, or one per convolution.
        stride: Steps between outputs: one number, or one per convolution.
        options: Further arguments of :class:`Encoder`.

    Raises:
        ConfigError: ``num_classes`` or an option of the convolutions is out of range, there are
            convolutions of tokens or a stride without any, a cell over convolutions takes times
            (``timed``), or the stack's options are invalid.
    """

    passes_options_to = Encoder

    def __init__(
        self,
        cell: CellFactory,
        num_classes: int,
        *,
        input_size: int | None = None,
        filters: Sequence[int] = (),
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        **options: Any,
    ) -> None:
        super().__init__()
        check_count("Transcriber", num_classes=num_classes)
        if filters and input_size is None:
            raise ConfigError(
                f"Transcriber: filters is {list(filters)}, expected none: convolutions read "
                "features, and the input is tokens."
            )
        if not filters and stride != 1:
            raise ConfigError(
                f"Transcriber: stride is {stride} without filters, expected 1: it is the stride of "
                "convolutions.\n  One convolution with 32 output features: filters=[32]."
            )
        self.front = None
        if filters and input_size is not None:
            self.front = ConvFront1d(input_size, filters, kernel_size, stride, causal=False)
            input_size = self.front.output_size
        self.encoder = Encoder(cell, input_size=input_size, **options)
        if self.front is not None:
            check_reads_no_times("Transcriber", self.encoder, "an embedded frame")
        self.output = Linear(self.encoder.output_size, num_classes)

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of each frame's classes, (B, ceil(T / stride), C), and the state after the last.

        Args:
            x: Features, (B, T, I), or tokens, (B, T) int64.
            state: The state before the first step; the initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """
        if self.front is not None:
            x, lengths = self.front(x, lengths)
        y, state = self.encoder(x, state, lengths)
        return self.output(y), state

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """Frames of each row, (B,), from its steps."""
        return lengths if self.front is None else self.front.lengths_after(lengths)
