"""Torch's functions over time: all steps of a layer, or of several, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import _VF, Tensor

from seqnets.cells import GatedCell, LSTMCell
from seqnets.engine.lengths import last_step, reverse_time
from seqnets.engine.native.second_derivative import let_derive_twice
from seqnets.engine.native.weights import weights_of
from seqnets.engine.request import Request
from seqnets.typing import State

# Users cannot act on this warning: only flatten_parameters decides where weights are in memory.
warnings.filterwarnings("ignore", "RNN module weights are not part of single", module=__name__)

_SATURATED = 1e4  # the logistic function is exactly 1 here, and 0 at its negative, in every dtype


def run_layer(cell: GatedCell, request: Request) -> tuple[Tensor, State]:
    """One call for whole rows, corrected for lengths and direction.

    Returns:
        Outputs (B, T, H), and the state after each row's last valid step.
    """
    weights, lengths, before = weights_of(cell), request.lengths, _before(request)
    x, valid = request.x, None
    if lengths is not None:
        x, valid = request.clean_x, request.valid
    if request.reverse:
        x = reverse_time(x, lengths)
    if valid is not None and isinstance(cell, LSTMCell):
        x, weights = _holding_memory(cell, x, valid, weights)
    y, *state = call(function_of(cell), x, before, weights, options_of([cell]))
    if valid is not None:
        h = before[0].to(y.dtype)  # autocast may have changed the dtype of y
        state[0] = last_step(y, h[0], lengths).unsqueeze(0)
        y = y.masked_fill(~valid[..., None], 0)
    if request.reverse:
        y = reverse_time(y, lengths)
    return y, tuple([part.squeeze(0) for part in state])


def _before(request: Request) -> list[Tensor]:
    """The state before the first step, each (1, B, H): kernels have a dimension for layers."""
    if request.given is not None:
        return [part.unsqueeze(0) for part in request.given]
    return zeros(request.x, 1, request.x.shape[0], request.cell.state_sizes)


def zeros(x: Tensor, layers: int, rows: int, sizes: Sequence[int]) -> list[Tensor]:
    """A state of zeros, each part (layers, B, H)."""
    size, *others = sizes
    h = x.new_zeros(layers, rows, size)  # never written to, so that parts may share it
    return [h, *[h if n == size else x.new_zeros(layers, rows, n) for n in others]]


def _holding_memory(
    cell: LSTMCell, x: Tensor, valid: Tensor, weights: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Add an input that is 1 on padding, where its weights close the input gate and open the other.

    An LSTM's memory then passes through padding unchanged, so that the kernel's last memory is that
    of each row's last valid step. This needs no packing, and no wait for the lengths' values.
    """
    weight, *rest = weights
    padding = (~valid).to(x.dtype).unsqueeze(-1)
    column = cell.split(x.new_zeros(len(weight)))
    column.i.fill_(-_SATURATED)
    column.f.fill_(_SATURATED)
    wider = torch.cat([weight, torch.cat(column).unsqueeze(-1)], -1)
    return torch.cat([x, padding], -1), [wider, *rest]


def function_of(cell: GatedCell) -> Any:
    """Torch's function over time for such a cell.

    It follows from the number of states and gates, which is quicker to look up than the class.
    """
    if len(cell.states) > 1:
        return _LSTM
    return _GRU if len(cell.gates) > 1 else getattr(_VF, f"rnn_{cell.nonlinearity}")


_LSTM, _GRU = _VF.lstm, _VF.gru  # looked up once: _VF searches for them at each access


def options_of(
    cells: Sequence[GatedCell], directions: int = 1, dropout: float = 0.0, batch_first: bool = True
) -> tuple[Any, ...]:
    """What torch's functions over time take after the weights."""
    # A kernel can be differentiated only if it ran in training mode. torch.jit.trace runs a module
    # with and without gradients, and both runs must look the same.
    tracing = torch._C._get_tracing_state() is not None
    train = cells[0].training if tracing else torch.is_grad_enabled()
    biases, layers = "bias_ih" in cells[0].parameter_shapes, len(cells) // directions
    return biases, layers, dropout, train or dropout > 0, directions > 1, batch_first


def call(
    function: Any,
    x: Tensor,
    state: Sequence[Tensor],
    weights: list[Tensor],
    options: tuple[Any, ...],
) -> tuple[Tensor, ...]:
    """Outputs, and the state after the last step, by torch's function over time."""
    memory = len(state) > 1
    found: tuple[Tensor, ...] = function(x, state if memory else state[0], weights, *options)
    by_one_kernel = memory or not x.is_cpu  # else operations, which have all derivatives
    if by_one_kernel and found[0].requires_grad and not torch.compiler.is_compiling():
        let_derive_twice(found[1])
    return found
