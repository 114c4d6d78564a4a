"""torch's own kernels (oneDNN, cuDNN), for the cells whose equations are exactly theirs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import _VF, Tensor, nn

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.cells.base import autocasts
from seqnets.checks import name_of
from seqnets.engine import onnx_export
from seqnets.engine.families import FAMILIES, family
from seqnets.engine.lengths import last_step, reverse_time
from seqnets.engine.modes import is_plain, under_transform
from seqnets.engine.request import Request
from seqnets.engine.second_derivative import let_derive_twice
from seqnets.typing import State

name = "native"

# Users cannot act on this warning: only flatten_parameters decides where weights are in memory.
warnings.filterwarnings("ignore", "RNN module weights are not part of single", module=__name__)

_SATURATED = 1e4  # the logistic function is exactly 1 here, and 0 at its negative, in every dtype


def refusal(request: Request) -> str | None:
    """Why these kernels cannot run the request; None if they can."""
    if family(request.cell) is None:
        known = ", ".join(family.__name__ for family in FAMILIES)
        return f"torch has no kernel for {name_of(request.cell)}, only for {known}"
    if request.memory == "lean":
        return "torch's kernels keep more than states"
    if request.resets is not None:
        return "torch's kernels cannot reset the state inside a sequence"
    if request.x.shape[1] == 0:
        return "torch's kernels need at least one step"
    if onnx_export.runs_here():
        return onnx_export.refusal_of_operator(request)
    if under_transform():
        return "torch's kernels do not run under vmap, forward-mode or functional derivatives"
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return "torch.compile cannot differentiate torch's own recurrent kernels"
    if request.x.is_cpu and autocasts(request.x):
        return request.cell.asked(_refusal_of_autocast) or None
    return None


def _refusal_of_autocast(cell: Cell) -> str:
    """Why there is no kernel in autocast's dtype on this processor; empty if there is one.

    Under autocast, torch passes an LSTM to oneDNN without asking whether that supports the dtype.
    """
    dtype = torch.get_autocast_dtype("cpu")
    fails = _is_onednns(cell) and not _has_onednn(dtype)
    return f"oneDNN has no such LSTM in {dtype} here" if fails else ""


def computes_in_half(request: Request) -> bool:
    """Whether a kernel on the CPU computes in float16 or bfloat16 itself, which makes it faster.

    That is oneDNN's, of LSTMs; the others are operations of a step each, which convert.
    """
    return _is_onednns(request.cell) and _has_onednn(request.dtype)


def _is_onednns(cell: Cell) -> bool:
    """Whether torch passes a cell on a CPU to oneDNN."""
    is_lstm = family(cell) is LSTMCell and not cast(LSTMCell, cell).proj_size
    return is_lstm and torch.backends.mkldnn.is_available()


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's LSTM supports a half-precision dtype on this processor; it trains in one."""
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()) and not torch.is_grad_enabled()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    if onnx_export.runs_here():
        return onnx_export.run_operator(request)
    cell: Any = request.cell
    x, kernel = request.x, request.known_step
    if kernel is None and request.lengths is None:
        kernel = one_step_kernel(cell, x)
    if kernel is not None:
        after = _stepped(kernel, _weights(cell), cell.hidden_size, x.squeeze(1), request.given)
        y = after[0].clone().unsqueeze(1)
        return y, (after[0].clone(),) if _keeps_result(cell) else after
    y, *state = _run_kernel(cell, request)
    return y, tuple([part.squeeze(0) for part in state])


def _weights(cell: GatedCell) -> list[Any]:
    """A cell's weights, in the order in which torch's kernels take them."""
    own = cell._parameters
    try:
        return list(map(own.__getitem__, cell.parameter_shapes))
    except KeyError:  # some are computed from others
        return [cell._tensor(name) for name in cell.parameter_shapes]


def _run_kernel(cell: GatedCell, request: Request) -> tuple[Tensor, ...]:
    """One call of torch's kernel on whole rows, corrected for lengths and direction.

    Each state part is (1, B, H): torch's kernels have a dimension for layers first.
    """
    weights, lengths, before = _weights(cell), request.lengths, _before(request)
    x, valid = request.x, None
    if lengths is not None:
        x, valid = request.clean_x, request.valid
    if request.reverse:
        x = reverse_time(x, lengths)
    if valid is not None and isinstance(cell, LSTMCell):
        x, weights = _holding_memory(cell, x, valid, weights)
    y, *state = _call(_over_time(cell), x, before, weights, _options([cell]))
    if valid is not None:
        h = before[0].to(y.dtype)  # autocast may have changed the dtype of y
        state[0] = last_step(y, h[0], lengths).unsqueeze(0)
        y = y.masked_fill(~valid[..., None], 0)
    if request.reverse:
        y = reverse_time(y, lengths)
    return y, *state


def _before(request: Request) -> list[Tensor]:
    """The state before the first step, each (1, B, H)."""
    if request.given is not None:
        return [part.unsqueeze(0) for part in request.given]
    return _zeros(request.x, 1, request.x.shape[0], request.cell.state_sizes)


def _zeros(x: Tensor, layers: int, rows: int, sizes: Sequence[int]) -> list[Tensor]:
    """A state of zeros, each part (layers, B, H)."""
    size, *others = sizes
    h = x.new_zeros(layers, rows, size)  # never written to, so that parts may share it
    return [h, *[h if n == size else x.new_zeros(layers, rows, n) for n in others]]


def layers_at_once(
    cells: Sequence[GatedCell], x: Tensor, directions: int, dropout: float, batch_first: bool
) -> Callable[[Tensor, State | None], tuple[Tensor, State]]:
    """All layers of a stack in one call, for inputs like ``x`` and the cells' present parameters.

    It is a function of inputs, laid out like ``x``, and the state before the first step, each
    (L*D, B, H), or None for zeros: it returns the outputs and the state after the last step.

    Args:
        cells: One cell for each layer and direction, directions of a layer next to each other; all
            of one family.
        x: Inputs, (B, T, I), or (T, B, I) unless ``batch_first``.
        directions: D, 1 or 2.
        dropout: Probability with which outputs between layers are dropped in this call.
        batch_first: Whether rows come before steps.
    """
    first, weights = cells[0], [_weights(cell) for cell in cells]
    rows, time = (0, 1) if batch_first else (1, 0)
    if x.is_cpu and x.shape[time] == 1 and (kernel := _step_kernel(first)):
        steps = [partial(_stepped, kernel, own, first.hidden_size) for own in weights]
        return partial(_step_layers, steps, directions, dropout, time, _keeps_result(first))
    function, options = _over_time(first), _options(cells, directions, dropout, batch_first)
    flat = [weight for own in weights for weight in own]
    sizes = first.state_sizes

    def run(x: Tensor, state: State | None) -> tuple[Tensor, State]:
        before = _zeros(x, len(cells), x.shape[rows], sizes) if state is None else state
        y, *after = _call(function, x, before, flat, options)
        return y, tuple(after)

    return run


def _step_layers(
    steps: Sequence[Callable[[Tensor, Sequence[Tensor] | None], State]],
    directions: int,
    dropout: float,
    time: int,
    is_kept: bool,
    x: Tensor,
    state: State | None,
) -> tuple[Tensor, State]:
    """All layers of a stack for a single step: outputs and states as of ``layers_at_once``.

    Args:
        steps: The step of each layer and direction, by an input and a state.
        directions: D, 1 or 2.
        dropout: Probability with which outputs between layers are dropped in this call.
        time: The dimension of time.
        is_kept: Whether a step's result is kept for its gradient, and callers get a copy.
        x: Inputs, of one step.
        state: The state before it, each (L*D, B, H); zeros if omitted.
    """
    y = x.squeeze(time)
    befores: Sequence[Sequence[Tensor] | None] = [None] * len(steps)
    if state is not None:
        befores = list(zip(*[part.unbind(0) for part in state], strict=True))
    if len(steps) == 1:  # as below, by fewer operations
        h, *others = [part.unsqueeze(0) for part in steps[0](y, befores[0])]
        y, after = (h.transpose(0, 1) if time else h), (h.clone(), *others)
        return (y.clone() if is_kept else y), after
    afters: list[State] = []
    for layer in range(0, len(steps), directions):
        if dropout and layer:
            y = F.dropout(y, dropout)
        afters += [steps[place](y, befores[place]) for place in range(layer, layer + directions)]
        found = [after[0] for after in afters[layer:]]
        y = found[0] if directions == 1 else torch.cat(found, -1)
    y, after = y.unsqueeze(time), tuple([torch.stack(part) for part in zip(*afters, strict=True)])
    return (y.clone() if is_kept else y), after


def _options(
    cells: Sequence[GatedCell], directions: int = 1, dropout: float = 0.0, batch_first: bool = True
) -> tuple[Any, ...]:
    """What torch's functions over time take after the weights."""
    # A kernel can be differentiated only if it ran in training mode. torch.jit.trace runs a module
    # with and without gradients, and both runs must look the same.
    tracing = torch._C._get_tracing_state() is not None
    train = cells[0].training if tracing else torch.is_grad_enabled()
    biases, layers = "bias_ih" in cells[0].parameter_shapes, len(cells) // directions
    return biases, layers, dropout, train or dropout > 0, directions > 1, batch_first


def _call(
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


def _over_time(cell: GatedCell) -> Any:
    """Torch's function for all steps of such a cell.

    It is told from the number of states and gates, which is quicker than from the class.
    """
    if len(cell.states) > 1:
        return _LSTM
    return _GRU if len(cell.gates) > 1 else getattr(_VF, f"rnn_{cell.nonlinearity}")


# Looked up once: _VF searches for them at each access.
_LSTM, _GRU, _LSTM_STEP, _GRU_STEP = _VF.lstm, _VF.gru, _VF.lstm_cell, _VF.gru_cell


def flatten_parameters(cells: Sequence[Cell], directions: int = 1) -> None:
    """Move float16 weights into one piece of memory, from which cuDNN reads them on a GPU.

    Otherwise each call copies them into one. The parameters remain the same objects. Those that
    share memory with other tensors are not moved, nor are those of other dtypes: for these the
    engine's own loops are as fast, and some formats for saving weights refuse, or confuse, tensors
    that share memory.

    Args:
        cells: The cells that one call runs, as for ``run_layers``.
        directions: D, 1 or 2.
    """
    if any(family(cell) is None or cell.parametrised for cell in cells):
        return
    cell = cast(GatedCell, cells[0])
    weights = [weight for each in cells for weight in _weights(cast(GatedCell, each))]
    if not all(map(_may_move, weights)) or not torch._use_cudnn_rnn_flatten_weight():
        return
    proj_size = cell.proj_size if isinstance(cell, LSTMCell) else 0
    sizes = cell.input_size, _mode(cell), cell.hidden_size, proj_size, len(cells) // directions
    with torch.no_grad(), torch.cuda.device_of(weights[0]):
        # (..., num_layers, batch_first, bidirectional)
        stride = len(weights) // len(cells)
        torch._cudnn_rnn_flatten_weight(weights, stride, *sizes, True, directions > 1)


def _may_move(weight: Tensor) -> bool:
    """Whether a weight is in float16, has memory of its own, and cuDNN takes it."""
    return (
        isinstance(weight, nn.Parameter)  # not a tensor that is computed from one
        and weight.dtype == torch.float16
        and weight.untyped_storage().nbytes() == weight.numel() * weight.element_size()
        and torch.backends.cudnn.is_acceptable(weight)
    )


def _mode(cell: GatedCell) -> int:
    """The number by which cuDNN knows a cell's equation."""
    # In torch 2.10, the import hides an option of the same name, so it waits until it is needed.
    from torch.backends.cudnn.rnn import get_cudnn_mode

    if isinstance(cell, RNNCell):
        return get_cudnn_mode(f"RNN_{cell.nonlinearity.upper()}")
    return get_cudnn_mode("LSTM" if isinstance(cell, LSTMCell) else "GRU")


def step(cell: Cell, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """One step of a cell, by torch's kernel for a whole step where there is one.

    Args:
        cell: The recurrence.
        x: Input, (B, I).
        state: The state before the step, each (B, H); the cell's initial state if omitted.

    Raises:
        ShapeError, DtypeError, DeviceError: As for ``Cell.forward``.
    """
    if cell._modules or cell._forward_pre_hooks:  # else no weight is computed from others
        cell.compute_weights(x)
    kernel = _step_kernel(cell)
    if kernel is None or under_transform():
        return cell.forward(x, state)
    cell.check_input(x, "B", "I")
    if state is not None:
        state = cell.check_state(state, x)
    after = _stepped(kernel, _weights(cast(GatedCell, cell)), cell.hidden_size, x, state)
    return after[0], after


def one_step_kernel(cell: Cell, x: Tensor) -> Any:
    """Torch's function for a step of such a cell, if inputs are a single one on a CPU; else None.

    It takes less time than torch's kernels for sequences, and than our loops.
    """
    if x.shape[1] != 1 or not x.is_cpu or not is_plain(x):
        return None
    return _step_kernel(cell)


def _stepped(
    kernel: Any, weights: list[Any], units: int, x: Tensor, state: Sequence[Tensor] | None
) -> State:
    """The state after one step, by torch's function; from zeros if there is none before."""
    memory = kernel is _LSTM_STEP
    if state is None:
        h = x.new_zeros(x.shape[0], units)  # never written to, so that parts may share it
        hx: Any = (h, h) if memory else h
    else:
        hx = state if memory else state[0]
    after = kernel(x, hx, *weights) if len(weights) > 2 else kernel(x, hx, *weights, None, None)
    return after if memory else (after,)


def _keeps_result(cell: GatedCell) -> bool:
    """Whether torch keeps the result of such a cell's step, which then nobody may change."""
    return len(cell.gates) == 1 and torch.is_grad_enabled()  # a plain network


_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"  # in the order of a cell's shapes


def _step_kernel(cell: Cell) -> Any:
    """Torch's function for a step of such a cell; None if it has none."""
    kind = family(cell)
    if kind is None:
        return None
    if tuple(cast(GatedCell, cell).parameter_shapes) not in (_WEIGHTS, _WEIGHTS[:2]):
        return None
    if kind is LSTMCell:
        return _LSTM_STEP
    return _GRU_STEP if kind is GRUCell else getattr(_VF, f"rnn_{cell.nonlinearity}_cell")


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
