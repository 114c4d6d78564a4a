"""Truncated backpropagation through time, around any recurrent layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets.checks import check_count
from seqnets.errors import ConfigError
from seqnets.layers.bidirectional import runs_ahead
from seqnets.layers.checks import check_is_layer
from seqnets.layers.lengths import checked_lengths
from seqnets.layers.state import detach


class Truncated(nn.Module):
    """Let gradients flow back through a limited number of steps; outputs stay what they were.

    Time is cut into windows. The state enters each window as a number without history. With
    ``stride == steps`` windows follow each other, and the gradient of an output reaches back to
    its window's first step. With a smaller stride windows overlap and each gives only its last
    ``stride`` outputs, so that every gradient reaches at least ``steps - stride + 1`` steps
    back (the steps before are computed once more, with dropout masks of their own); ``stride=1``
    is the textbook's sum, exactly ``steps`` for each output.

    Args:
        layer: A recurrent layer in one direction, of which every step is an output: Recurrent,
            DeepRNN, or what goes around them step by step.
        steps: How many steps a gradient reaches back at most, counting the output's own; from 1.
        stride: Outputs of each window, a divisor of ``steps``; by default all of them.

    Raises:
        ConfigError: ``steps`` or ``stride`` makes no sense, or the layer is none, runs backwards or
            in both directions, or sees several steps at once.

    References:
        Williams & Peng, 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of
        Recurrent Network Trajectories": BPTT(steps; stride).
    """

    def __init__(self, layer: nn.Module, steps: int, stride: int | None = None) -> None:
        super().__init__()
        check_is_layer("Truncated", layer)
        check_count("Truncated", steps=steps)
        stride = steps if stride is None else stride
        check_count("Truncated", stride=stride)
        if steps % stride:
            raise ConfigError(
                f"Truncated: steps is {steps} and stride {stride}, expected a divisor of steps."
            )
        if not runs_ahead(layer):
            raise ConfigError(
                "Truncated: the layer runs backwards or in both directions, expected ahead.\n"
                "  A layer that comes from the future cannot carry its state between windows."
            )
        for part in layer.modules():
            if hasattr(part, "lengths_after") and not getattr(part, "per_step", False):
                raise ConfigError(
                    f"Truncated: {type(part).__name__} sees several steps at once, expected a "
                    f"layer that takes one after the other.\n"
                    f"  A window would cut through what it sees; put Truncated around the "
                    f"recurrent layer inside."
                )
        self.layer = layer
        self.steps = steps
        self.stride = stride

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.layer.input_size  # type: ignore[return-value]

    @property
    def output_size(self) -> int:
        """Features of the output."""
        return self.layer.output_size  # type: ignore[return-value]

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """As the layer's own forward.

        Raises:
            ShapeError: A length is outside 0..T, or what the layer itself refuses.
        """
        lengths = checked_lengths("Truncated", lengths, x)
        T = x.shape[1]
        if T <= self.stride or not torch.is_grad_enabled():
            return self.layer(x, state, lengths, resets)

        outputs = []
        seen = {0: state}  # the state before a step, for the steps at which a window may begin
        for begin in range(0, T, self.stride):
            first = max(0, begin + self.stride - self.steps)
            end = min(begin + self.stride, T)
            y, state = self.layer(
                x[:, first:end],
                seen[first],
                None if lengths is None else (lengths - first).clamp(0, end - first),
                None if resets is None else resets[:, first:end],
            )
            outputs.append(y[:, begin - first :])
            seen[begin + self.stride] = detach(state)
        return torch.cat(outputs, 1), state

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of the layer; nothing to truncate."""
        return self.layer.step(x, state, resets)  # type: ignore[operator]

    def extra_repr(self) -> str:
        """The windows."""
        return f"steps={self.steps}, stride={self.stride}"
