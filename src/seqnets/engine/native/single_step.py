"""Torch's functions for a single step, which take less time than those over time, or our loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import _VF, Tensor

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell
from seqnets.engine.families import family
from seqnets.engine.lengths import where_rows
from seqnets.engine.modes import is_plain, under_transform
from seqnets.engine.native.weights import weights_of
from seqnets.engine.request import checked_resets, computed, state_before
from seqnets.typing import State


def step(
    cell: Cell, x: Tensor, state: State | None = None, resets: Tensor | None = None
) -> tuple[Tensor, State]:
    """One step of a cell, by torch's kernel for a whole step where there is one.

    Args:
        cell: The recurrence.
        x: Input, (B, I).
        state: The state before the step, each (B, H); the cell's initial state if omitted.
        resets: Rows whose state is reset before the step, (B,) boolean.

    Raises:
        ShapeError, DtypeError, DeviceError: As for ``Cell.forward``.
    """
    cell = computed(cell, x)
    if resets is not None:
        cell.check_input(x, "B", "I")
        start, before = state_before(cell, x, None), state_before(cell, x, state)
        rows = checked_resets(cell._name, resets, x, "B")[:, None]
        state = where_rows(rows, start, before)
    kernel = kernel_of(cell)
    if kernel is None or under_transform():
        return cell.forward(x, state)
    cell.check_input(x, "B", "I")
    if state is not None:
        state = cell.check_state(state, x)
    after = stepped(kernel, weights_of(cast(GatedCell, cell)), cell.hidden_size, x, state)
    return after[0], after


def one_step_kernel(cell: Cell, x: Tensor) -> Any:
    """Torch's function for a step of such a cell, if inputs are of one on a CPU; else None."""
    if x.shape[1] != 1 or not x.is_cpu or not is_plain(x):
        return None
    return kernel_of(cell)


def kernel_of(cell: Cell) -> Any:
    """Torch's function for a step of such a cell; None if it has none."""
    kind = family(cell)
    if kind is None:
        return None
    if tuple(cast(GatedCell, cell).parameter_shapes) not in (_WEIGHTS, _WEIGHTS[:2]):
        return None
    if kind is LSTMCell:
        return _LSTM
    return _GRU if kind is GRUCell else getattr(_VF, f"rnn_{cell.nonlinearity}_cell")


_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"  # in the order of a cell's shapes
_LSTM, _GRU = _VF.lstm_cell, _VF.gru_cell  # looked up once: _VF searches for them at each access


def stepped(
    kernel: Any, weights: list[Any], units: int, x: Tensor, state: Sequence[Tensor] | None
) -> State:
    """The state after one step, by torch's function; from zeros if there is none before."""
    memory = kernel is _LSTM
    if state is None:
        h = x.new_zeros(x.shape[0], units)  # never written to, so that parts may share it
        hx: Any = (h, h) if memory else h
    else:
        hx = state if memory else state[0]
    after = kernel(x, hx, *weights) if len(weights) > 2 else kernel(x, hx, *weights, None, None)
    return after if memory else (after,)


def keeps_result(cell: GatedCell) -> bool:
    """Whether torch keeps the result of such a cell's step for its gradient; callers get a copy."""
    return len(cell.gates) == 1 and torch.is_grad_enabled()  # a plain network
