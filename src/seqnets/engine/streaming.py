"""Streaming: one cell step by step without gradients, in C where possible.

``layers/serving.py`` composes these into streams of whole layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.attributes import with_attributes_given
from seqnets.engine.c.compiler import NoCompiler
from seqnets.engine.c.stream import CStream
from seqnets.engine.graph import Untraceable
from seqnets.engine.modes import refusal_of_memory
from seqnets.typing import State


class CellStream(Protocol):
    """A cell that keeps its state between calls, with fixed buffers for input and output."""

    y: Tensor

    def __call__(self) -> None:
        """Run one step."""

    @property
    def state(self) -> State:
        """The state after the last step, each (B, H)."""

    def set_state(self, state: Sequence[Tensor]) -> None:
        """Replace the state."""


def stream_cell(cell: Cell, x: Tensor) -> tuple[CellStream, str | None]:
    """A stream of a cell that reads ``x``, (B, I), and why it is not in C; None if it is."""
    if x.device.type != "cpu":
        return _PlainStream(cell, x), f"the loops in C run on cpu, not on {x.device}"
    if x.dtype not in (torch.float32, torch.float64):
        return _PlainStream(cell, x), f"the loops in C do not compute in {x.dtype}"
    if reason := refusal_of_memory(cell.tensors()):
        return _PlainStream(cell, x), reason
    try:
        return CStream(with_attributes_given(cell)[0], x), None
    except (Untraceable, NoCompiler) as reason:
        return _PlainStream(cell, x), str(reason)


class _PlainStream:
    """The cell's own ``step``, with copies of its present parameters and mode."""

    def __init__(self, cell: Cell, x: Tensor) -> None:
        now = {name: tensor.detach().clone() for name, tensor in cell.tensors().items()}
        self._cell, self._x = cell.bind(now), x
        self.y = x.new_zeros(x.shape[0], cell.output_size)
        self.state: State = tuple(x.new_zeros(x.shape[0], size) for size in cell.state_sizes)

    def __call__(self) -> None:
        with torch.no_grad():
            self.state = self._cell.step(self._cell.project(self._x), self.state)
            self.y.copy_(self.state[0])

    def set_state(self, state: Sequence[Tensor]) -> None:
        self.state = tuple(part.detach().clone() for part in state)
