"""A recurrent layer over segments of a sequence, and another over its summaries of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from seqnets.checks import check_count, check_flags
from seqnets.engine.lengths import at_steps
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.checks import (
    check_every_step,
    check_gives_one_output,
    check_is_layer,
    check_parts,
    check_reads_no_times,
)
from seqnets.layers.lengths import checked_lengths, lengths_after, strided_lengths, valid_steps


class Hierarchical(nn.Module):
    """One layer reads fixed-length segments, another the first one's output at the end of each.

    Segments are counted from a row's first step in a call: chunks must be cut at the end of a
    segment, and single steps are not supported.

    Args:
        lower: Reads the input; a layer with one output for each input step.
        upper: Reads the lower layer's output at the last valid step of each segment.
        stride: Steps of a segment, at least 1.
        carry: Whether the lower layer keeps its state from segment to segment; else it is reset at
            each, so that a segment is read the same way wherever it stands.

    Raises:
        ConfigError: ``stride`` is not a positive integer, a layer is not a recurrent layer, the
            lower one gives a pair of outputs, or a cell of the upper one takes times (``timed``).
        ShapeError: The output size of ``lower`` is not the input size of ``upper``.

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
        check_flags("Hierarchical", carry=carry)
        check_is_layer("Hierarchical", lower, "lower")
        check_is_layer("Hierarchical", upper, "upper")
        check_gives_one_output("Hierarchical", lower)
        check_reads_no_times("Hierarchical", upper, "the lower layer's output")
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
        """Valid steps of each row's output, (B,), from those of its input."""
        return lengths_after(self.upper, strided_lengths(lengths, self.stride))

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
                omitted. Without ``carry`` the lower one is ignored.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Steps before which the lower layer's state is reset, (B, T) boolean; the upper
                one's is reset before a segment that contains such a step.

        Raises:
            ShapeError: A length is outside 0..T, or the lower layer changes the number of steps.
        """
        lengths = checked_lengths("Hierarchical", lengths, x)
        if state is not None:
            check_parts("Hierarchical", state, 2, "a pair: (lower state, upper state)")
        low, high = (None, None) if state is None else state
        T, n = x.shape[1], -(-x.shape[1] // self.stride)
        begins = torch.arange(T, device=x.device) % self.stride == 0
        lower_resets = resets
        if not self.carry:
            lower_resets = begins.expand(x.shape[:2]) if resets is None else resets | begins
        y, low = self.lower(x, low, lengths, lower_resets)
        check_every_step("Hierarchical", self.lower, y, x)

        if resets is not None:
            if lengths is not None:
                resets = resets & valid_steps(resets, lengths)
            padded = nn.functional.pad(resets, (0, n * self.stride - T))
            resets = padded.unflatten(1, (n, self.stride)).any(2)
        ends = torch.arange(1, n + 1, device=x.device) * self.stride
        last = T if lengths is None else lengths[:, None].clamp(1, max(T, 1))
        ends = ends.clamp(max=last).expand(x.shape[0], n)
        summaries = at_steps(y, ends - 1)
        y, high = self.upper(summaries, high, strided_lengths(lengths, self.stride), resets)
        return y, (low, high)

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(self, x: Tensor, state: Any = None, resets: Tensor | None = None) -> NoReturn:
        """Unsupported: the state does not record the position inside a segment.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"Hierarchical: step was called, expected whole segments of {self.stride} steps.\n"
            f"  The state does not record the position inside a segment; call the layer instead."
        )

    def extra_repr(self) -> str:
        """The segments."""
        return f"stride={self.stride}, carry={self.carry}"
