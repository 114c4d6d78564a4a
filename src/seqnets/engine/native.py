"""torch's own kernels (oneDNN, cuDNN), for the cells whose equations are exactly theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from torch import _VF, Tensor

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.engine import reference
from seqnets.engine.request import Request, under_transform
from seqnets.typing import State

name = "native"

_FAMILIES: tuple[type[GatedCell], ...] = (LSTMCell, GRUCell, RNNCell)
_EQUATIONS = (
    "gates", "states", "project", "product", "recur", "split", "update", "step", "initial_state",
    "gate", "candidate", "squash",
)  # fmt: skip
_SATURATED = 1e4  # the logistic function is exactly 1 here, and 0 at its negative, in every dtype

_Loop = Callable[..., tuple[Tensor, ...]]


def refusal(request: Request) -> str | None:
    """Why these kernels cannot run the request; None if they can."""
    if family(request.cell) is None:
        known = ", ".join(family.__name__ for family in _FAMILIES)
        return f"torch has no kernel for {type(request.cell).__name__}, only for {known}"
    if request.memory == "lean":
        return "torch's kernels keep more than states"
    if request.resets is not None:
        return "torch's kernels cannot reset the state inside a sequence"
    if request.x.shape[1] == 0:
        return "torch's kernels need at least one step"
    if under_transform():
        return "torch's kernels do not run under vmap, forward-mode or functional derivatives"
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return "torch.compile cannot differentiate torch's own recurrent kernels"
    return None


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    cell = cast(GatedCell, request.cell)
    y, *state = _run_kernel(request)
    if y.requires_grad and not torch.compiler.is_compiling():
        parameters = {name: getattr(cell, name) for name in cell.parameter_shapes}
        inputs, states = (request.x, *request.state, *parameters.values()), len(request.state)

        def plain(*inputs: Tensor) -> tuple[Tensor, ...]:
            x, *rest = inputs
            bound = cell.bind(dict(zip(parameters, rest[states:], strict=True)))
            y, last = reference.run(replace(request, cell=bound, x=x, state=tuple(rest[:states])))
            return y, *last

        y, *state = _TwiceByThePlainLoop.apply(plain, len(inputs), *inputs, y, *state)
    return y, tuple(state)


class _TwiceByThePlainLoop(torch.autograd.Function):
    """Hands on what a kernel returned, and goes around it where a derivative is derived again."""

    @staticmethod
    def forward(ctx: Any, plain: _Loop, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, outputs = tensors[:count], tensors[count:]
        ctx.plain, ctx.autocast = plain, _autocast_like_now(inputs[0].device.type)
        ctx.set_materialize_grads(False)  # a kernel is slower for zeros than for nothing
        ctx.save_for_backward(*inputs)
        return tuple(y.detach() for y in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, None, *(None for _ in inputs), *grads
        with ctx.autocast:  # create_graph=True
            outputs = ctx.plain(*inputs)
        needs = ctx.needs_input_grad[2 : 2 + len(inputs)]
        pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None]
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs],
                [t for t, need in zip(inputs, needs, strict=True) if need],
                [g for _, g in pairs],
                create_graph=True,
                allow_unused=True,
            )
        )
        around = [next(found) if need else None for need in needs]
        return None, None, *around, *(None for _ in grads)


def _autocast_like_now(device: str) -> torch.autocast:
    return torch.autocast(
        device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    )


def _run_kernel(request: Request) -> tuple[Tensor, ...]:
    """One call of torch's kernel over whole rows, made right for lengths and direction."""
    cell = cast(GatedCell, request.cell)
    x, lengths, valid = request.clean_x, request.lengths, request.valid
    if request.reverse:
        x = _reversed(x, request)
    if lengths is None or valid is None:
        y, *state = _call(cell, x, request.state, cell.weight_ih)
    else:
        weight = cell.weight_ih
        if isinstance(cell, LSTMCell):
            x, weight = _holding_memory(cell, x, valid)
        y, *state = _call(cell, x, request.state, weight)
        last = (lengths - 1).clamp(min=0)[:, None, None]
        h = y.take_along_dim(last, 1)[:, 0]
        state[0] = torch.where((lengths > 0)[:, None], h, request.state[0])
        y = y.masked_fill(~valid[..., None], 0)
    if request.reverse:
        y = _reversed(y, request)
    return y, *state


def _call(cell: GatedCell, x: Tensor, state: State, weight_ih: Tensor) -> tuple[Tensor, ...]:
    rest = [getattr(cell, name) for name in cell.parameter_shapes if name != "weight_ih"]
    weights = [weight_ih, *rest]  # in the kernels' order: weight_hh, biases, weight_hr
    hidden = [h.unsqueeze(0) for h in state]
    kernel: Any
    hx: Tensor | list[Tensor]
    if isinstance(cell, RNNCell):
        kernel, hx = getattr(_VF, f"rnn_{cell.nonlinearity}"), hidden[0]
    elif isinstance(cell, GRUCell):
        kernel, hx = _VF.gru, hidden[0]
    else:
        kernel, hx = _VF.lstm, hidden
    # (has_biases, num_layers, dropout, train, bidirectional, batch_first); cuDNN has a backward
    # only for what it ran as training
    options = (cell.bias_ih is not None, 1, 0.0, torch.is_grad_enabled(), False, True)
    y, *state = kernel(x, hx, weights, *options)
    return y, *(h.squeeze(0) for h in state)


def _holding_memory(cell: LSTMCell, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """One more input that is 1 on padding, and shuts the input and opens the forget gate there.

    The memory passes through padding unchanged, so that the kernel's last memory is that of each
    row's last valid step: no packing, no wait for the lengths' values.
    """
    padding = (~valid).to(x.dtype).unsqueeze(-1)
    column = cell.split(x.new_zeros(cell.weight_ih.shape[0]))
    column.i.fill_(-_SATURATED)
    column.f.fill_(_SATURATED)
    return (
        torch.cat([x, padding], -1),
        torch.cat([cell.weight_ih, torch.cat(column).unsqueeze(-1)], -1),
    )


def _reversed(rows: Tensor, request: Request) -> Tensor:
    """Each row's valid steps in the opposite order; padding stays where it is."""
    if request.lengths is None or request.valid is None:
        return rows.flip(1)
    steps = torch.arange(rows.shape[1], device=rows.device)
    steps = torch.where(request.valid, request.lengths[:, None] - 1 - steps, steps)
    return rows.take_along_dim(steps[..., None], 1)


def family(cell: Cell) -> type[GatedCell] | None:
    """The class whose equations this cell has unchanged, subclasses included."""
    kind = type(cell)  # torch.compile looks into functions, and not into their caches
    return _family(kind) if torch.compiler.is_compiling() else _known_family(kind)


def _family(kind: type[Cell]) -> type[GatedCell] | None:
    for one in _FAMILIES:
        if issubclass(kind, one) and all(
            getattr(kind, part) is getattr(one, part) for part in _EQUATIONS
        ):
            return one
    return None


_known_family = cache(_family)
