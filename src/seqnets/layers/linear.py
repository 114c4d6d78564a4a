"""The affine map of nearly every model."""

from __future__ import annotations

from torch import Tensor, nn

from seqnets.engine.products import linear


class Linear(nn.Linear):
    """A drop-in ``torch.nn.Linear`` that uses seqnets' own matrix product where it is faster.

    That is on CPUs whose vector units torch's product does not fully use (docs/engine.md), at the
    sizes for which it was measured. Elsewhere, and under ``torch.compile``, autocast, functional
    transforms and export, the product is torch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``input @ weight.T + bias``, (..., O) for (..., I)."""
        return linear(input, self.weight, self.bias)
