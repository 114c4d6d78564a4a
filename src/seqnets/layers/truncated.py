"""Truncated backpropagation through time, around any recurrent layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqnets.checks import check_count
from seqnets.errors import ConfigError
from seqnets.layers.around import Around
from seqnets.layers.checks import check_forward_steps
from seqnets.layers.lengths import checked_lengths
from seqnets.layers.state import detach


class Truncated(Around):
    """Limit how many steps gradients flow back; outputs do not change.

    Time is cut into windows, and the state is detached where it enters one. With
    ``stride == steps`` windows follow each other, and the gradient of an output reaches back to
    the first step of its window. With a smaller stride windows overlap and each contributes only
    its last ``stride`` outputs, so that every gradient reaches at least ``steps - stride + 1``
    steps back; the overlap is computed again, with its own dropout masks. ``stride=1`` is the
    textbook form: exactly ``steps`` steps for each output.

    Args:
        layer: A forward recurrent layer with one output per step: Recurrent, DeepRNN, or a
            step-by-step layer around them.
        steps: The most steps that a gradient reaches back, counting the output's own; at least 1.
        stride: Outputs of each window, a divisor of ``steps``; by default ``steps``.

    Raises:
        ConfigError: ``steps`` or ``stride`` is invalid, or the layer is not recurrent, runs
            backwards or in both directions, or mixes several steps.

    References:
        Williams & Peng, 1990, "An Efficient Gradient-Based Algorithm for On-Line Training of
        Recurrent Network Trajectories": BPTT(steps; stride).
    """

    def __init__(self, layer: nn.Module, steps: int, stride: int | None = None) -> None:
        super().__init__()
        why = "Only a forward layer can carry its state from window to window."
        check_forward_steps("Truncated", layer, why)
        check_count("Truncated", steps=steps)
        stride = steps if stride is None else stride
        check_count("Truncated", stride=stride)
        if steps % stride:
            raise ConfigError(
                f"Truncated: stride is {stride}, expected a divisor of steps = {steps}."
            )
        self.layer = layer
        self.steps = steps
        self.stride = stride

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """The layer's own forward, with truncated gradients.

        Raises:
            ShapeError: A length is outside 0..T, or the layer rejects its arguments.
        """
        lengths = checked_lengths("Truncated", lengths, x)
        T = x.shape[1]
        if not torch.is_grad_enabled() or T <= self.stride:
            return self.layer(x, state, lengths, resets)

        pieces = None
        if x.requires_grad:  # the gradient of each slice would be as long as x
            pieces = x.split(self.stride, 1)
        outputs = []
        states = {0: state}  # the state before each step at which a window may begin
        for begin in range(0, T, self.stride):
            first = max(0, begin + self.stride - self.steps)
            end = min(begin + self.stride, T)
            window = x[:, first:end]
            if pieces is not None:
                window = torch.cat(pieces[first // self.stride : begin // self.stride + 1], 1)
            y, state = self.layer(
                window,
                states[first],
                None if lengths is None else (lengths - first).clamp(0, end - first),
                None if resets is None else resets[:, first:end],
            )
            outputs.append(y[:, begin - first :])
            states[begin + self.stride] = detach(state)
        return torch.cat(outputs, 1), state

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def extra_repr(self) -> str:
        """The windows."""
        return f"steps={self.steps}, stride={self.stride}"
