"""One prediction for a whole sequence: a class, or numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets.checks import check_choice, check_count
from seqnets.engine.lengths import at_steps
from seqnets.layers import Bidirectional, CellFactory
from seqnets.layers.lengths import masked_softmax, valid_steps
from seqnets.models.encoder import Encoder

POOLINGS = ("last", "mean", "max", "attention")


class SequenceClassifier(nn.Module):
    """Classify sequences: recurrent stack, pooling over time, softmax output.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        num_classes: Number of classes, C.
        pooling: Pooling over a row's valid steps: "last" (the first step for a layer or direction
            that runs backwards, which reaches it last), "mean", "max", or "attention": a mean with
            learned weights, the softmax over steps of a linear score.
        options: Further arguments of :class:`Encoder`.

    Raises:
        ConfigError: ``pooling`` is unknown, ``num_classes`` is not positive, or the stack's options
            are invalid.

    References:
        Raffel and Ellis, 2015, "Feed-Forward Networks with Attention Can Solve Some Long-Term
        Memory Problems", arXiv:1512.08756, for attention. Their experiments bound each step's score
        by tanh; here it is unbounded.
    """

    passes_options_to = Encoder

    def __init__(
        self, cell: CellFactory, num_classes: int, *, pooling: str = "last", **options: Any
    ) -> None:
        super().__init__()
        check_choice(type(self).__name__, POOLINGS, pooling=pooling)
        check_count(type(self).__name__, num_classes=num_classes)
        self.pooling = pooling
        self.encoder = Encoder(cell, **options)
        size = self.encoder.output_size
        self.score = nn.Linear(size, 1, bias=False) if pooling == "attention" else None
        self.output = nn.Linear(size, num_classes)

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of the classes, (B, C), and the state after each row's last valid step.

        Args:
            x: Features, (B, T, I), or tokens, (B, T) int64.
            state: The state before the first step; the initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """
        y, state = self.encoder(x, state, lengths)
        if lengths is None:
            lengths = torch.full((y.shape[0],), y.shape[1], device=y.device)
        return self.output(self._pool(y, torch.as_tensor(lengths, device=y.device))), state

    def _pool(self, y: Tensor, lengths: Tensor) -> Tensor:
        if self.pooling == "mean":
            return y.sum(1) / lengths.clamp(min=1)[:, None]
        valid = valid_steps(y, lengths)[..., None]
        if self.pooling == "max":
            peaks = y.masked_fill(~valid, -torch.inf).amax(1)
            return torch.where((lengths > 0)[:, None], peaks, 0.0)
        if self.score is not None:
            return (masked_softmax(self.score(y), valid, 1) * y).sum(1)
        ends, top = at_steps(y, (lengths - 1).clamp(min=0)[:, None])[:, 0], self.encoder.top
        if isinstance(top, Bidirectional):
            half = y.shape[-1] // 2
            return torch.cat([ends[:, :half], y[:, 0, half:]], -1)
        return y[:, 0] if top.reverse else ends


class SequenceRegressor(SequenceClassifier):
    """Predict numbers for sequences: recurrent stack, pooling over time, linear output.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        output_size: How many numbers to predict, K.
        options: As for :class:`SequenceClassifier`.
    """

    def __init__(self, cell: CellFactory, output_size: int, **options: Any) -> None:
        check_count("SequenceRegressor", output_size=output_size)
        super().__init__(cell, output_size, **options)
