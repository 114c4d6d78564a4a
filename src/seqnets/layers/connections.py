"""What is between the layers of a stack: skip connections, norms and feed-forward layers.

A connection is a function of a layer's input and its output; the others are functions of a step.
What they learn has the ``device`` and the ``dtype`` that they are made with, as in torch.nn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.errors import ShapeError, counted
from seqnets.layers.linear import Linear


class NoConnection(nn.Module):
    """The layer's output alone."""

    def __init__(self, width: int, **like: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y``, as it is."""
        return y


class Residual(NoConnection):
    """Input and output, added (He et al., 2016, "Deep Residual Learning", arXiv:1512.03385)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x + y``, each (..., H)."""
        return x + y


class ClosedGate(Linear):
    """The affine map of a gate that starts closed, and does so again when it is reset."""

    def reset_parameters(self) -> None:
        """Draw the weight as of any affine map; the sigmoid of the bias is near 0."""
        super().reset_parameters()
        nn.init.constant_(self.bias, -2.0)


class Highway(nn.Module):
    """A gate from input to output (Srivastava et al., 2015, "Highway Networks", arXiv:1505.00387).

    It starts closed: the input passes. Of frames, the gate reads the channels of a place and acts
    on them: it is a 1x1 convolution.

    Args:
        width: Features of a step, H.
        places: Places of a frame, channel by channel laid flat; 1 if a step is not a frame.
    """

    def __init__(self, width: int, places: int = 1, **like: Any) -> None:
        super().__init__()
        self.places = places
        channels = width // places
        self.gate = ClosedGate(channels, channels, **like)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` where the gate is shut, ``y`` where it is open, each (..., H)."""
        if self.places == 1:
            opened = self.gate(x)
        else:
            by_place = x.unflatten(-1, (-1, self.places)).transpose(-1, -2)
            opened = self.gate(by_place).transpose(-1, -2).flatten(-2)
        return x + torch.sigmoid(opened) * (y - x)


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


def connect(
    name: str, depth: int, num_layers: int, width: int, output_size: int, places: int, **like: Any
) -> nn.Module:
    """The connection of one layer; the first has none, and in a dense stack the last."""
    skips = depth < num_layers - 1 if name == "dense" else depth > 0
    kind = CONNECTIONS[name] if skips else NoConnection
    if kind not in (NoConnection, Dense) and output_size != width:
        raise ShapeError(
            f"DeepRNN: layer {depth} takes {counted(width, 'feature')} and gives {output_size}, "
            f"expected the same number.\n"
            f"  connection={name!r} adds the two; change hidden_size or merge."
        )
    return kind(width, places=places, **like)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "none": nn.Identity,
    "layer": nn.LayerNorm,
    "rms": partial(nn.RMSNorm, eps=1e-5),  # as of LayerNorm; torch's own depends on the dtype
}
"""Norms of a step's features by name, made from their number."""


class FeedForward(nn.Module):
    """Add to each step what a perceptron with a gate makes of it (SwiGLU, without biases).

    Args:
        width: Features of a step, H.
        size: Features between the perceptron's two layers, F.
        norm: The name of the norm in front of it.

    References:
        Shazeer, 2020, "GLU Variants Improve Transformer", arXiv:2002.05202.
    """

    def __init__(self, width: int, size: int, norm: str, **like: Any) -> None:
        super().__init__()
        self.norm = NORMS[norm](width, **like)
        self.enter = Linear(width, 2 * size, bias=False, **like)
        self.leave = Linear(size, width, bias=False, **like)

    def forward(self, x: Tensor, dropout: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` and what is made of it after norm and dropout, added, (..., H)."""
        value, gate = self.enter(dropout(self.norm(x))).chunk(2, -1)
        return x + self.leave(F.silu(gate) * value)


Join = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""What is above a layer, from what is below it and its output; and what is read of that."""


def joined(
    dropout: Callable[[Tensor], Tensor],
    is_top: bool,
    connection: nn.Module,
    feed_forward: nn.Module | None,
    norm: nn.Module | None,
    x: Tensor,
    y: Tensor,
) -> tuple[Tensor, Tensor]:
    """A :data:`Join`: what is read comes after norm and dropout; at the top, after the norm."""
    x = connection(x, y)
    if feed_forward is not None:
        x = feed_forward(x, dropout)
    read = x if norm is None else norm(x)
    return x, read if is_top else dropout(read)


def beside_time(join: Join, is_top: bool, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A :data:`Join` under which, and over which but for the top, the last feature is the time."""
    x, time = x[..., :-1], x[..., -1:]
    above, read = join(x, y)
    if is_top:
        return above, read
    timed = torch.cat([above, time], -1)
    return timed, timed if read is above else torch.cat([read, time], -1)
