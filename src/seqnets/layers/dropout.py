"""Dropout with one mask for all steps."""

from __future__ import annotations

from torch import Tensor, nn

from seqnets.cells.masks import sequence_mask


class LockedDropout(nn.Dropout):
    """Dropout with one mask for all steps of a row within a call.

    Args:
        p: Probability in [0, 1] of dropping a feature.

    References:
        Gal and Ghahramani, 2016, "A Theoretically Grounded Application of Dropout in Recurrent
        Neural Networks", arXiv:1512.05287.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (B, T, I) after dropout."""
        if not self.training or not self.p:
            return x
        if self.p == 1:
            return x * 0
        return x * sequence_mask(x, x.shape[-1], 1 - self.p, steps=False)
