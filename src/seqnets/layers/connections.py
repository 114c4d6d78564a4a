"""Skip connections around the layers of a stack: functions of a layer's input and its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets.errors import ShapeError, counted
from seqnets.layers.linear import Linear


class NoConnection(nn.Module):
    """The layer's output alone."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y``, as it is."""
        return y


class Residual(NoConnection):
    """Input and output, added (He et al., 2016, "Deep Residual Learning", arXiv:1512.03385)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``, each (..., H)."""
        return x + y


class Highway(nn.Module):
    """A gate from input to output (Srivastava et al., 2015, "Highway Networks", arXiv:1505.00387).

    It starts closed: the input passes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` where the gate is shut, ``y`` where it is open, each (..., H)."""
        return x + torch.sigmoid(self.gate(x)) * (y - x)


class Dense(NoConnection):
    """Input and output, side by side (Huang et al., 2017, arXiv:1608.06993)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` and ``y``, concatenated: (..., I + H)."""
        return torch.cat([x, y], -1)


CONNECTIONS: dict[str, type[nn.Module]] = {
    "none": NoConnection,
    "residual": Residual,
    "highway": Highway,
    "dense": Dense,
}
"""Skip connections by name."""


def connect(name: str, depth: int, num_layers: int, width: int, output_size: int) -> nn.Module:
    """The connection of one layer; the first has none, and in a dense stack the last."""
    skips = depth < num_layers - 1 if name == "dense" else depth > 0
    kind = CONNECTIONS[name] if skips else NoConnection
    if kind not in (NoConnection, Dense) and output_size != width:
        raise ShapeError(
            f"DeepRNN: layer {depth} takes {counted(width, 'feature')} and gives {output_size}, "
            f"expected the same number.\n"
            f"  connection={name!r} adds the two; change hidden_size or merge."
        )
    return kind(width)
