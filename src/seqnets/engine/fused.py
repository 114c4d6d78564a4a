"""A traced step over time, by loops of somebody else's, as one function that has a derivative.

The loops (in C, in Triton, in torch's own operations) know a program and buffers. Here is all that
they share: the projection of inputs, what is saved between the passes, the products that make the
weights' gradients, and when to leave for the plain loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine import reference
from seqnets.engine.program import Program
from seqnets.engine.request import Request
from seqnets.engine.trace import Entry, parameters_of
from seqnets.typing import State


@dataclass(frozen=True)
class Order:
    """In which order steps run, and which of them: see ``Request``."""

    lengths: Tensor | None
    resets: Tensor | None
    reverse: bool

    def steps(self, T: int) -> range:
        """All steps, in order."""
        return range(T - 1, -1, -1) if self.reverse else range(T)


@dataclass
class Kept:
    """What the forward pass keeps for the backward pass.

    Attributes:
        befores: State parts before each step, (B, T, H), by their place in the state.
        values: What products other than a state's multiply, (B, T, columns), by product.
        saved: The program's ``saved``, side by side, (B, T, saved_size); one column at least, for
            its layout is that of all.
    """

    befores: dict[int, Tensor]
    values: dict[int, Tensor]
    saved: Tensor

    def to_list(self) -> list[Tensor]:
        """The tensors alone."""
        return [*self.befores.values(), *self.values.values(), self.saved]

    @staticmethod
    def from_list(program: Program, tensors: Sequence[Tensor]) -> Kept:
        """What ``to_list`` took apart."""
        places = iter(tensors)
        return Kept(
            {p: next(places) for p in sorted(program.befores)},
            {k: next(places) for k in program.values},
            next(places),
        )


@dataclass
class Gradients:
    """What the backward pass finds.

    Attributes:
        wx: Of the projected input, (B, T, W).
        products: Of each product, (B, T, rows); those of ``Program.shared`` are ``wx`` itself.
        units: Of each of the program's ``units``, (H,).
        initial: Of the state before the first step, each (B, H).
        start: Of the state after a reset, each (B, H); empty where nothing is reset.
    """

    wx: Tensor
    products: dict[int, Tensor]
    units: list[Tensor]
    initial: State
    start: State


class Loops(Protocol):
    """A way to run a program over time. All tensors (B, T, …) are laid out in memory as ``wx``."""

    def forward(
        self,
        program: Program,
        wx: Tensor,
        initial: State,
        start: State,
        parameters: dict[str, Tensor],
        order: Order,
        save: bool,
    ) -> tuple[Tensor, State, Kept | None]:
        """Outputs (B, T, H), the state after each row's last step, and if asked what to keep."""

    def backward(
        self,
        program: Program,
        kept: Kept,
        grad_y: Tensor | None,
        grad_final: Sequence[Tensor | None],
        parameters: dict[str, Tensor],
        order: Order,
    ) -> Gradients:
        """All gradients, from those of outputs and final state; None stands for zeros."""


def run(loops: Loops, program: Program, request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step.

    Args:
        loops: What runs the program.
        program: The cell's.
        request: What is asked for.
    """
    parameters = parameters_of(request.cell)
    tensors = (request.clean_x, *request.state, *parameters.values())
    call = _Run(loops, program, request)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        if request.memory == "lean" and request.x.shape[1] > _LEAN_STEPS:
            return _in_chunks(loops, program, request)
        y, *state = _Fused.apply(call, tuple(parameters), *tensors)
        return y, tuple(state)
    wx = project(request.cell, tensors[0])
    used = {name: parameters[name] for name in program.step.parameters}
    y, final, _ = loops.forward(
        program, wx, request.state, request.start, used, call.order, save=False
    )
    return y, final


_LEAN_STEPS = 64  # what the backward pass of so many steps needs is in memory at a time


def _in_chunks(loops: Loops, program: Program, request: Request) -> tuple[Tensor, State]:
    """The same, a chunk of steps after the other, so that only one is computed again at a time."""
    state = request.state
    outputs: list[Tensor] = []
    chunks = range(0, request.x.shape[1], _LEAN_STEPS)
    for first in reversed(chunks) if request.reverse else chunks:
        steps = slice(first, first + _LEAN_STEPS)
        x, lengths, resets = request.x[:, steps], request.lengths, request.resets
        chunk = replace(
            request,
            x=x,
            state=state,
            lengths=None if lengths is None else (lengths - first).clamp(0, x.shape[1]),
            resets=None if resets is None else resets[:, steps],
        )
        y, state = run(loops, program, chunk)
        outputs.append(y)
    return torch.cat(outputs[::-1] if request.reverse else outputs, 1), state


def project(cell: Cell, x: Tensor) -> Tensor:
    """The projected input, (B, T, W), laid out in memory as the input is."""
    if comes_first(x):
        return cell.project(x.transpose(0, 1)).contiguous().transpose(0, 1)
    return cell.project(x).contiguous()


def comes_first(x: Tensor) -> bool:
    """Whether time is the first dimension in the memory of a tensor (B, T, …)."""
    return not x.is_contiguous() and x.transpose(0, 1).is_contiguous()


def rows(tensor: Tensor) -> Tensor:
    """All steps of all rows below each other in the order of memory: (B, T, C) to (B*T, C)."""
    return (tensor.transpose(0, 1) if comes_first(tensor) else tensor).reshape(-1, tensor.shape[-1])


def empty(like: Tensor, columns: int) -> Tensor:
    """A tensor (B, T, columns) without numbers, laid out as another one is."""
    B, T, _ = like.shape
    if comes_first(like):
        return like.new_empty(T, B, columns).transpose(0, 1)
    return like.new_empty(B, T, columns)


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The same numbers, laid out as another tensor is."""
    if comes_first(like):
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    return tensor.contiguous()


def kept_sizes(program: Program) -> list[int]:
    """Columns of each tensor of ``Kept.to_list``."""
    step = program.step
    befores = [step.state_sizes[p] for p in sorted(program.befores)]
    values = [step.products[k].weight.columns for k in program.values]
    return [*befores, *values, max(1, program.saved_size)]


def weight_gradients(
    program: Program, found: Gradients, kept: Kept, parameters: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What the loops' gradients mean for the parameters: a product each, over rows and steps."""
    gradients: dict[str, Tensor] = {}
    for k, product in enumerate(program.step.products):
        part, weight = program.part_of(k), product.weight
        value = kept.values[k] if part is None else kept.befores[part]
        grad = found.wx if k in program.shared else found.products[k]
        value = laid_out(value, grad)
        whole = weight.rows == len(parameters[weight.name])
        if whole and weight.name not in gradients:
            gradients[weight.name] = rows(grad).T @ rows(value)
        else:
            total = gradients.setdefault(weight.name, torch.zeros_like(parameters[weight.name]))
            total[weight.offset : weight.offset + weight.rows].addmm_(rows(grad).T, rows(value))
    for leaf, unit in zip(program.units, found.units, strict=True):
        name, offset = leaf.what.key, leaf.what.offset
        total = gradients.setdefault(name, torch.zeros_like(parameters[name]))
        if leaf.width:
            total[offset : offset + leaf.width] += unit
        else:
            total += unit.sum()
    return gradients


@dataclass(frozen=True)
class _Run:
    """A request, and what is to run it."""

    loops: Loops
    program: Program
    request: Request

    @property
    def lean(self) -> bool:
        return self.request.memory == "lean"

    @property
    def order(self) -> Order:
        lengths = self.request.lengths
        lengths = None if lengths is None else lengths.contiguous()
        return Order(lengths, self.request.resets, self.request.reverse)

    def rebuilt(self, names: Sequence[str], tensors: Sequence[Tensor]) -> Request:
        """The request with other tensors: input, state and parameters."""
        parts = len(self.request.state)
        bound = self.request.cell.bind(dict(zip(names, tensors[1 + parts :], strict=True)))
        return replace(self.request, cell=bound, x=tensors[0], state=tensors[1 : 1 + parts])


class _Fused(torch.autograd.Function):
    """Both passes of a loop, which gives way to the plain one when it is differentiated twice.

    The input's projection is recorded inside: its result, the largest tensor of all, need not be
    kept, since only the way back through it is.
    """

    @staticmethod
    def forward(
        ctx: Any, run: _Run, names: tuple[str, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.run, ctx.names = run, names
        ctx.inputs = tuple(t.detach().requires_grad_(t.requires_grad) for t in tensors)
        request = run.rebuilt(names, ctx.inputs)
        with torch.enable_grad():
            wx, start = project(request.cell, request.x), request.start
            ctx.entering = []
            ctx.entry = Entry.apply(ctx.entering, wx, *start)
        y, final, kept = run.loops.forward(
            run.program, wx, request.state, start, _used(run, request), run.order, save=True
        )
        assert kept is not None  # it was asked for
        keep = kept.befores.values() if run.lean else kept.to_list()
        ctx.parts = len(tensors)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *keep)
        return y, *final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors, kept = ctx.saved_tensors[: ctx.parts], ctx.saved_tensors[ctx.parts :]
        if torch.is_grad_enabled():  # create_graph=True
            return None, None, *_plain_gradients(ctx, tensors, grads)
        run, names = ctx.run, ctx.names
        request = run.rebuilt(names, ctx.inputs)
        used = _used(run, request)
        complete = (
            _computed_again(run, request, used, kept)
            if run.lean
            else Kept.from_list(run.program, kept)
        )
        found = run.loops.backward(run.program, complete, grads[0], grads[1:], used, run.order)
        gradients: dict[str, Tensor | None] = dict(
            weight_gradients(run.program, found, complete, used)
        )
        through = _through_projection(ctx, (found.wx, *found.start))
        parts = len(request.state)
        grad_x, *grad_state = through[: 1 + parts]
        for name, more in zip(names, through[1 + parts :], strict=True):
            here = gradients.get(name)
            gradients[name] = more if here is None else here if more is None else here + more
        return (
            None,
            None,
            grad_x,
            *(a if b is None else a + b for a, b in zip(found.initial, grad_state, strict=True)),
            *(gradients[name] for name in names),
        )


def _used(run: _Run, request: Request) -> dict[str, Tensor]:
    parameters = parameters_of(request.cell)
    return {name: parameters[name].detach() for name in run.program.step.parameters}


def _computed_again(
    run: _Run, request: Request, used: dict[str, Tensor], kept: Sequence[Tensor]
) -> Kept:
    """What a lean forward pass threw away: every step of every row is a row of one large step."""
    program = run.program
    befores = dict(zip(sorted(program.befores), kept, strict=True))
    with torch.no_grad():
        wx = project(request.cell, request.x)
    like = empty(wx, 0)
    sizes = program.step.state_sizes
    N = like.shape[0] * like.shape[1]
    state = tuple(
        rows(laid_out(befores[p], wx)) if p in befores else wx.new_zeros(N, size)
        for p, size in enumerate(sizes)
    )
    once = Order(None, None, False)
    _, _, again = run.loops.forward(program, rows(wx)[:, None], state, (), used, once, save=True)
    assert again is not None  # it was asked for

    def in_place(tensor: Tensor) -> Tensor:
        B, T = like.shape[:2]
        columns = tensor.shape[-1]
        if comes_first(wx):
            return tensor.reshape(T, B, columns).transpose(0, 1)
        return tensor.reshape(B, T, columns)

    return Kept(befores, {k: in_place(v) for k, v in again.values.items()}, in_place(again.saved))


def _through_projection(ctx: Any, grads: Sequence[Tensor]) -> list[Tensor | None]:
    """Back through the projection and the initial state, to all inputs of the function."""
    inputs = [t for t in ctx.inputs if t.requires_grad]
    if not inputs or not ctx.entry.requires_grad:
        return [None] * len(ctx.inputs)
    ctx.entering[:] = grads
    places = iter(torch.autograd.grad(ctx.entry, inputs, retain_graph=True, allow_unused=True))
    ctx.entering.clear()  # they need not live as long as the function does
    return [next(places) if t.requires_grad else None for t in ctx.inputs]


def _plain_gradients(
    ctx: Any, tensors: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, from the plain loop."""
    y, state = reference.run(ctx.run.rebuilt(ctx.names, tensors))
    pairs = [(o, g) for o, g in zip((y, *state), grads, strict=True) if g is not None]
    needed = [t for t, need in zip(tensors, ctx.needs_input_grad[2:], strict=True) if need]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            needed,
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in ctx.needs_input_grad[2:]]
