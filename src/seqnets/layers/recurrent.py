"""A cell over sequences, as a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from typing_extensions import Self

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell
from seqnets.cells.constructors import checks_calls
from seqnets.checks import check_flags
from seqnets.engine import native
from seqnets.engine.unroll import unroll
from seqnets.layers.checks import cannot_step, check_run_options
from seqnets.layers.torch_base import leaf_call
from seqnets.typing import State


class Recurrent(nn.Module):
    """Run a cell over a batch of sequences.

    Args:
        cell: The recurrence.
        reverse: Whether time runs backwards.
        backend: "auto", or the name of the backend that must run.
        memory: "full", or "lean" to train in less memory and more time; see ``unroll``.

    Raises:
        ConfigError: ``cell`` is not a cell, or ``backend`` or ``memory`` is unknown.

    Example:
        >>> layer = Recurrent(cells.LSTMCell(input_size=8, hidden_size=16))
        >>> y, (h, c) = layer(torch.randn(4, 100, 8))  # y: (4, 100, 16)
    """

    _unroll = staticmethod(unroll)
    """What runs the cell; replaced while the layer is explained."""

    @checks_calls
    def __init__(
        self, cell: Cell, *, reverse: bool = False, backend: str = "auto", memory: str = "full"
    ) -> None:
        super().__init__()
        check_is_cell("Recurrent", cell)
        check_run_options("Recurrent", backend, memory)
        check_flags("Recurrent", reverse=reverse)
        self.cell = cell
        self.reverse = reverse
        self.backend = backend
        self.memory = memory
        native.flatten_parameters([cell])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # to another device, say, or another dtype
        native.flatten_parameters([self.cell])
        return self

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.cell.input_size

    @property
    def output_size(self) -> int:
        """Features of the output."""
        return self.cell.output_size

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Outputs (B, T, H), and the state after each row's last step; see ``unroll``.

        Args:
            x: Inputs, (B, T, I).
            state: State before the first step, each (B, H); the cell's initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Steps before which the state is reset, (B, T) boolean.
        """
        if isinstance(x, torch.fx.Proxy):
            return leaf_call(self, x, state, lengths, resets)
        return self._unroll(
            self.cell,
            x,
            state,
            lengths,
            resets,
            reverse=self.reverse,
            backend=self.backend,
            memory=self.memory,
        )

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(
        self, x: Tensor, state: State | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Take one step: x (B, I) and the state before, to output (B, H) and the state after.

        Args:
            x: Inputs of the step, (B, I).
            state: State before it, each (B, H); the cell's initial state if omitted.
            resets: Rows whose state is reset before the step, (B,) boolean.

        Raises:
            ConfigError: The layer runs backwards.
        """
        if self.reverse:
            raise cannot_step("Recurrent", "it runs backwards")
        return native.step(self.cell, x, state, resets)

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        parts = ["reverse=True"] if self.reverse else []
        parts += [f"backend={self.backend!r}"] * (self.backend != "auto")
        return ", ".join(parts + [f"memory={self.memory!r}"] * (self.memory != "full"))
