"""Equations that hold the input itself, whatever its width."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell


class FittingCell(GatedCell):
    """A gated cell whose equation holds the input itself, or a product in its place if I is not H.

    A subclass finds it in the last H columns of ``wx``.

    Attributes:
        weight_x: The product's matrix, (H, I), or None if I is H.
    """

    weight_x: Tensor | None

    def add_parameters(self, parameter: Any) -> None:
        """What fits the input, where that is not as wide as the output."""
        H, I = self.hidden_size, self.input_size
        self.register_parameter("weight_x", None if I == H else parameter(H, I))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for what fits the input."""
        super().reset_parameters()
        if self.weight_x is not None:
            initializers.xavier_(self.learned("weight_x"), 1)

    def fitted(self, x: Tensor) -> Tensor:
        """The input as wide as the output: (..., I) to (..., H)."""
        return x if self.weight_x is None else F.linear(x, self.weight_x)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate, then the fitted input: (..., I) to (..., G*H + H)."""
        return torch.cat([super().project(x), self.fitted(x)], -1)
