"""Streaming in C: weights packed once, fixed buffers, and one call per step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.buffers import addresses_of, numbered, parameter_buffers
from seqnets.engine.c.loops import Library, Settings, threads_and_groups
from seqnets.engine.c.threads import most_threads
from seqnets.engine.evaluate import parameters_of
from seqnets.engine.pieces import cut, joined, pieces_of
from seqnets.engine.plans import streaming_program_of


class CStream:
    """One cell, step by step, with a copy of its present parameters.

    Args:
        cell: The recurrence.
        x: The input buffer, (B, I), contiguous.

    Attributes:
        y: The output buffer, (B, H).

    Raises:
        Untraceable, NoCompiler: The step cannot be traced or compiled.
    """

    def __init__(self, cell: Cell, x: Tensor) -> None:
        self._program, preparation = streaming_program_of(cell)
        self._library = Library(self._program, x.dtype)
        B = x.shape[0]
        sizes = self._program.step.state_sizes
        self._pieces = pieces_of(cell.state_sizes, sizes)
        self.y = x.new_zeros(B, sizes[0])
        self._states = [tuple(x.new_zeros(B, size) for size in sizes) for _ in range(2)]
        with torch.no_grad():
            used = parameters_of(self._program.step, preparation.of(cell.tensors()), x.dtype)
        parameters = {name: parameter.detach().clone() for name, parameter in used.items()}
        weights = parameter_buffers(self._program, parameters)
        crossing = x.new_empty(B, self._program.saved_size)
        self._fixed = (x, crossing, weights)  # keeps the memory alive
        lanes, most = self._library.lanes, most_threads()
        split = threads_and_groups(self._program, lanes, B, 1, most)
        self._run, members, scratch = self._library.ready("forward", Settings(B, 1, *split))
        self._scratch = x.new_empty(scratch)
        fixed = {"x": x, "y": self.y, "saved": crossing, "scratch": self._scratch} | weights
        self._now = 0
        self._calls = []
        for packed in (0, 1):
            for before, after in ((0, 1), (1, 0)):
                buffers = numbered("initial", self._states[before])
                buffers |= numbered("final", self._states[after])
                values = addresses_of(fixed | buffers) | {"packed": packed}
                self._calls.append(self._library.members(members, values))
        self._run(self._calls[0])  # packs the weights; its outputs are discarded

    def __call__(self) -> None:
        """Run one step, from ``x`` to ``y``."""
        self._run(self._calls[2 + self._now])
        self._now = 1 - self._now

    @property
    def state(self) -> tuple[Tensor, ...]:
        """The state after the last step, each (B, H); the next step may overwrite it."""
        return joined(self._states[self._now], self._pieces)

    def set_state(self, state: Sequence[Tensor]) -> None:
        """Replace the state."""
        for mine, given in zip(self._states[self._now], cut(state, self._pieces), strict=True):
            mine.copy_(given)
