"""A module's layers by one call of torch's kernels, as torch.nn runs its own modules.

Where units and steps are few, Python around the layers takes longer than the layers themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.engine import native, recent_calls
from seqnets.engine.dispatch import choose, runs
from seqnets.engine.families import family
from seqnets.engine.modes import is_plain
from seqnets.engine.request import make_request
from seqnets.typing import State

_known: WeakKeyDictionary[Cell, tuple[recent_calls.Kind | None, set[Any]]] = WeakKeyDictionary()
"""Per cell of a first layer: the kind of the last call that was one, and sizes of others."""
_MOST_SIZES = 4096

# On a CPU one call of torch's kernels is faster up to here.
_FEW_UNITS = 64
_FEW_NUMBERS = 10_000
"""Rows * steps * units of a stack of LSTMs."""
_FEW_ROWS = 32
"""Of GRUs and plain networks."""
_FEW_STEPS: dict[type[GatedCell], dict[bool, tuple[int, int]]] = {
    GRUCell: {False: (3, 5), True: (3, 3)},
    RNNCell: {False: (10, 15), True: (7, 7)},
}
"""Of theirs, without and with gradients, for one layer and for several."""


class OneCall:
    """A module's layers in one call of torch's kernels, which may be repeated.

    Args:
        kind: The kind of the call, and of those like it.
        cells: As for :func:`one_call`, as the further arguments.
    """

    def __init__(
        self,
        kind: recent_calls.Kind,
        cells: Sequence[GatedCell],
        x: Tensor,
        directions: int,
        dropout: float,
        batch_first: bool,
    ) -> None:
        self.cells = cells
        self._kind, self._options = kind, (dropout > 0, batch_first)
        rows = x.shape[0 if batch_first else 1]
        self._state_shapes = [(len(cells), rows, size) for size in cells[0].state_sizes]
        self._run = native.layers_at_once(cells, x, directions, dropout, batch_first)

    def fits(self, x: Tensor, state: Any) -> bool:
        """Whether it may be repeated with other numbers, as long as the options are the same.

        Args:
            x: Inputs, for which ``is_plain`` holds.
            state: What is given as the state before the first step; None for zeros.
        """
        if not self._kind.fits(self.cells, x, *self._options):
            return False
        if state is None:
            return True
        if type(state) not in (tuple, list) or len(state) != len(self._state_shapes):
            return False
        for part, shape in zip(state, self._state_shapes, strict=True):
            if not isinstance(part, Tensor) or part.is_nested or part.shape != shape:
                return False
            if part.dtype is not x.dtype or part.device != x.device:
                return False
        return True

    def __call__(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Outputs with D*H features, laid out like ``x``, and the state after the last step.

        Args:
            x: Inputs.
            state: The state before the first step, each (L*D, B, H); zeros if omitted.

        Returns:
            The outputs, and the state after them, each part (L*D, B, H).
        """
        runs[native.name] += len(self.cells)
        return self._run(x, state)


def one_call(
    cells: Sequence[GatedCell],
    x: Tensor,
    state: State | None,
    *,
    directions: int,
    dropout: float,
    batch_first: bool,
) -> OneCall | None:
    """A module's layers in one call of torch's kernels; None if they run one by one.

    A single layer runs so if it is small, or if torch's kernel is chosen for it: at the first call
    like at the second, since a checkpoint compares what both save.

    Args:
        cells: One per layer and direction; of two directions, the second runs backwards.
        x: Inputs, (B, T, I), or (T, B, I) unless ``batch_first``.
        state: The state before the first step, each (L*D, B, H); zeros if omitted.
        directions: D, 1 or 2.
        dropout: Probability of dropping an output between layers, 0 in evaluation.
        batch_first: Whether rows come before steps.
    """
    if not is_plain(x):
        return None
    if state is not None and any(p.dtype != x.dtype or p.device != x.device for p in state):
        return None
    first, options = cells[0].origin, (dropout > 0, batch_first)
    kind, sizes = _known.get(first) or (None, set())  # decided once for calls of one kind
    if sizes and _size(x, *options) in sizes:
        return None
    if kind is None or not kind.fits(cells, x, *options):
        new = recent_calls.kind_of(cells, x, *options)
        if new is None:
            return None
        if not _as_one(cells, x if batch_first else x.transpose(0, 1), directions, dropout):
            if len(sizes) >= _MOST_SIZES:
                sizes.clear()
            sizes.add(_size(x, *options))
            _known[first] = kind, sizes
            return None
        kind = new
        _known[first] = kind, sizes
    return OneCall(kind, cells, x, directions, dropout, batch_first)


def _size(x: Tensor, *options: bool) -> tuple[Any, ...]:
    """Part of what the choice depends on, quick to find.

    It recognises stacks whose layers run one by one. A wrong match costs time, never correctness.
    """
    how = torch.is_grad_enabled(), torch.get_num_threads()
    return x.shape, x.dtype, x.device, *options, *how


def _is_small(cells: Sequence[GatedCell], x: Tensor) -> bool:
    """Whether torch runs such layers sooner than Python goes from layer to layer."""
    cell, several = cells[0], len(cells) > 1
    (rows, steps, _), units = x.shape, cell.hidden_size
    if x.device.type != "cpu" or x.dtype != torch.float32 or units > _FEW_UNITS:
        return False
    if isinstance(cell, LSTMCell):
        few = several and rows * steps * units <= _FEW_NUMBERS
        return few and not cell.proj_size and torch.backends.mkldnn.is_available()
    known = family(cell)
    if known is None or rows > _FEW_ROWS:
        return False
    return steps <= _FEW_STEPS[known][torch.is_grad_enabled()][several]


def _as_one(cells: Sequence[GatedCell], x: Tensor, directions: int, dropout: float) -> bool:
    """Whether one call can run the stack, and is faster than the layers one by one."""
    if family(cells[0]) is None or any(type(cell) is not type(cells[0]) for cell in cells):
        return False
    if dropout and x.is_cuda:  # cuDNN's masks cannot be drawn again for second derivatives
        return False
    small = _is_small(cells, x)
    for place, cell in enumerate(cells):
        given = x if place < directions else x.new_empty(*x.shape[:2], cell.input_size)
        request = make_request(cell, given, None, None, None, reverse=False)
        if native.refusal(request) or not (small or choose(request, "auto") == native.name):
            return False
    return True
