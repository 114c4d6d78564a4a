"""What layers around another layer share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seqnets.layers.lengths import lengths_after


class Around(nn.Module):
    """A layer around another one: as wide, and with the same step, unless it says otherwise.

    Attributes:
        layer: The other one.
    """

    layer: Any

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.layer.input_size

    @property
    def output_size(self) -> int:
        """Features of the output."""
        return self.layer.output_size

    @property
    def per_step(self) -> bool:
        """Whether every step is treated on its own, apart from what the other layer does."""
        return True

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """Valid steps of each row of the output, (B,), from those of the input."""
        return lengths_after(self.layer, lengths)

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of the layer, unchanged."""
        return self.layer.step(x, state, resets)
