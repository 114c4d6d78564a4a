"""A recurrent layer over segments, and one over what it says of each."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from seqnets.checks import check_count
from seqnets.engine.request import at_steps
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.checks import check_is_layer, check_parts
from seqnets.layers.lengths import checked_lengths, divided, valid_steps


class Hierarchical(nn.Module):
    """Let one layer read segments of so many steps, and another what it says at the end of each.

    Segments are counted from a row's first step in a call: sequences in chunks have to be cut where
    a segment ends, and single steps cannot be taken.

    Args:
        lower: Reads the input.
        upper: Reads the lower one's output at the last step of each segment; of one that the row's
            end cuts off, at the row's last step.
        stride: Steps of a segment, from 1.
        carry: Whether the lower layer keeps its state from segment to segment; else each segment
            begins with its initial state, and words are read alike wherever they stand.

    Raises:
        ConfigError: ``stride`` is no integer from 1, or one of the layers is none.
        ShapeError: ``upper`` does not take as many features as ``lower`` gives.

    Example:
        >>> lower, upper = Recurrent(cells.GRUCell(8, 64)), Recurrent(cells.GRUCell(64, 32))
        >>> net = Hierarchical(lower, upper, stride=10)
        >>> y, (low, high) = net(torch.randn(4, 100, 8))  # y: (4, 10, 32)

    References:
        El Hihi & Bengio, 1995, "Hierarchical Recurrent Neural Networks for Long-Term
        Dependencies".
    """

    lower: Any
    upper: Any

    def __init__(
        self, lower: nn.Module, upper: nn.Module, stride: int, *, carry: bool = True
    ) -> None:
        super().__init__()
        check_count("Hierarchical", stride=stride)
        check_is_layer("Hierarchical", lower, "lower")
        check_is_layer("Hierarchical", upper, "upper")
        self.lower, self.upper = lower, upper
        self.stride, self.carry = stride, carry
        if self.lower.output_size != self.upper.input_size:
            raise ShapeError(
                f"Hierarchical: the lower layer gives {counted(self.lower.output_size, 'feature')} "
                f"and the upper one takes {self.upper.input_size}, expected the same number."
            )

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.lower.input_size

    @property
    def output_size(self) -> int:
        """Features of the output."""
        return self.upper.output_size

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """Valid segments of each row, (B,), from its valid steps."""
        return divided(lengths, self.stride)

    def forward(
        self,
        x: Tensor,
        state: tuple[Any, Any] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, Any]]:
        """Outputs of the upper layer, (B, ceil(T / stride), H), and the states of both.

        Args:
            x: Inputs, (B, T, I).
            state: The lower and the upper layer's state before the first step; initial states if
                omitted. Without ``carry`` nothing is left of the lower one.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where the lower layer's state starts anew before a step, (B, T) boolean; the
                upper one's does so before the segment in which such a step is.
        """
        lengths = checked_lengths("Hierarchical", lengths, x)
        if state is not None:
            check_parts("Hierarchical", state, 2, "a pair: (lower state, upper state)")
        low, high = (None, None) if state is None else state
        T, n = x.shape[1], -(-x.shape[1] // self.stride)
        begins = torch.arange(T, device=x.device) % self.stride == 0
        fresh = resets
        if not self.carry:
            fresh = begins.expand(x.shape[:2]) if resets is None else resets | begins
        y, low = self.lower(x, low, lengths, fresh)

        if resets is not None:
            if lengths is not None:
                resets = resets & valid_steps(resets, lengths)
            whole = nn.functional.pad(resets, (0, n * self.stride - T))
            resets = whole.unflatten(1, (n, self.stride)).any(2)
        ends = torch.arange(1, n + 1, device=x.device) * self.stride
        last = T if lengths is None else lengths[:, None].clamp(1, max(T, 1))
        ends = ends.clamp(max=last).expand(x.shape[0], n)
        told = at_steps(y, ends - 1)
        y, high = self.upper(told, high, self.lengths_after(lengths), resets)
        return y, (low, high)

    def step(self, x: Tensor, state: Any = None, resets: Tensor | None = None) -> NoReturn:
        """Not to be had.

        Raises:
            ConfigError: Always: a state does not tell where in a segment it is.
        """
        raise ConfigError(
            "Hierarchical: step came, expected whole segments.\n"
            "  Its state does not tell where in a segment it is; call the layer with its stride."
        )

    def extra_repr(self) -> str:
        """How segments are made."""
        return f"stride={self.stride}, carry={self.carry}"
