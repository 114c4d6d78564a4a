"""What layers around another layer share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


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

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of the layer, unchanged."""
        return self.layer.step(x, state, resets)
