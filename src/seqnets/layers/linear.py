"""What stands beside recurrent layers in nearly every model."""

from __future__ import annotations

from torch import Tensor, nn

from seqnets.engine.products import linear


class Linear(nn.Linear):
    """``torch.nn.Linear``, to the letter, by a product of seqnets' own where that is faster.

    That is so on CPUs whose vectors torch's product does not use to the full (docs/engine.md): at
    the sizes and on the processors for which it was measured. Elsewhere, under ``torch.compile``,
    autocast and functional transforms, and for exporters, it is torch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``input @ weight.T + bias``, (..., O) for (..., I)."""
        return linear(input, self.weight, self.bias)
