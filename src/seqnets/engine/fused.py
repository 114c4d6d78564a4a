"""A traced step over time, by loops of somebody else's, as one function that has a derivative.

The loops (in C, in Triton, in torch's own operations) know a program and buffers. Here is all that
they share: the projection of inputs, what is saved between the passes, the products that make the
weights' gradients, and when to leave for the plain loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine import reference
from seqnets.engine.memory import room
from seqnets.engine.program import Program
from seqnets.engine.request import Request
from seqnets.engine.trace import Entry, Step
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
        units: Of each parameter with one number a unit, or one for all, shaped as it is.
        initial: Of the state before the first step, each (B, H).
        start: Of the state after a reset, each (B, H); empty where nothing is reset.
    """

    wx: Tensor
    products: dict[int, Tensor]
    units: dict[str, Tensor]
    initial: State
    start: State


class Loops(Protocol):
    """A way to run a program over time. All tensors (B, T, …) are laid out in memory as ``wx``.

    Attributes:
        skips_padding: Whether nothing is read of ``wx`` past a row's end, not even to be dropped.
    """

    skips_padding: bool

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


def run(loops: Loops, request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step.

    Args:
        loops: What runs the request's program.
        request: What is asked for.
    """
    parameters = request.cell.tensors()
    tensors = (request.clean_x, *request.state, *parameters.values())
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        lean = request.memory == "lean" and request.x.shape[1] > _LEAN_STEPS
        if lean and not request.cell.draws:  # a mask may be one for the whole sequence
            return _in_chunks(loops, request)
        y, *state = _Fused.apply(loops, request, tuple(parameters), *tensors)
        return y, tuple(state)
    program, state, start = request.program, request.state, request.start
    affine = request.projection
    if affine is None:
        wx = project(request.cell, tensors[0])
    else:
        inside = _rows_inside(loops, request, tensors[0])
        way = _AffineWay(start, tuple(parameters), inside, *affine)
        wx = way.project(tensors[0], parameters)
    used = numbers(program.step, parameters, wx.dtype)
    y, final, _ = loops.forward(program, wx, state, start, used, _order(request), save=False)
    return y, final


def numbers(step: Step, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors that a step uses, as loops compute with them: masks and counts in their dtype."""
    used = {name: tensors[name] for name in step.parameters}
    return {name: t if t.dtype is dtype else t.to(dtype) for name, t in used.items()}


def _order(request: Request) -> Order:
    return make_order(request.lengths, request.resets, request.reverse)


def make_order(lengths: Tensor | None, resets: Tensor | None, reverse: bool) -> Order:
    """An order whose lengths lie beside each other in memory, as loops read them."""
    return Order(None if lengths is None else lengths.contiguous(), resets, reverse)


_LEAN_STEPS = 64  # what the backward pass of so many steps needs is in memory at a time


def _in_chunks(loops: Loops, request: Request) -> tuple[Tensor, State]:
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
        y, state = run(loops, chunk)
        outputs.append(y)
    return torch.cat(outputs[::-1] if request.reverse else outputs, 1), state


def project(cell: Cell, x: Tensor) -> Tensor:
    """The projected input, (B, T, W), laid out in memory as the input is."""
    if not comes_first(x):
        return cell.project(x).contiguous()
    if cell.draws:  # one mask for all steps has to know which dimension they are
        return laid_out(cell.project(x), x)
    return cell.project(x.transpose(0, 1)).contiguous().transpose(0, 1)


def comes_first(x: Tensor) -> bool:
    """Whether time is the first dimension in the memory of a tensor (B, T, columns)."""
    B, _, columns = x.shape
    return not x.is_contiguous() and x.stride() == (columns, B * columns, 1)


def rows(tensor: Tensor) -> Tensor:
    """All steps of all rows below each other in the order of memory: (B, T, C) to (B*T, C)."""
    return (tensor.transpose(0, 1) if comes_first(tensor) else tensor).reshape(-1, tensor.shape[-1])


def empty(like: Tensor, columns: int) -> Tensor:
    """A tensor (B, T, columns) without numbers, laid out as another one is."""
    B, T, _ = like.shape
    if comes_first(like):
        return like.new_empty(T, B, columns).transpose(0, 1)
    return like.new_empty(B, T, columns)


def inner(like: Tensor, columns: int) -> Tensor:
    """The same for what the caller does not see, in memory that is kept for the next one."""
    B, T, _ = like.shape
    if comes_first(like):
        return room(like, T, B, columns).transpose(0, 1)
    return room(like, B, T, columns)


def _rows_inside(loops: Loops, request: Request, x: Tensor) -> Tensor | None:
    """Which of ``rows`` are within the lengths, where it pays to multiply no others.

    Only on the CPU, where to count them is to wait for nobody.
    """
    lengths, (B, T, _) = request.lengths, x.shape
    if lengths is None or not loops.skips_padding or request.memory == "lean":
        return None
    if int(lengths.sum()) > _DENSE * B * T:
        return None
    valid = torch.arange(T) < lengths[:, None]
    return (valid.T if comes_first(x) else valid).flatten().nonzero()[:, 0]


_DENSE = 0.7  # share of rows from which on to pick them takes longer than to multiply the others


def _picked(tensor: Tensor, inside: Tensor | None) -> Tensor:
    """All rows below each other, or some of them."""
    return rows(tensor) if inside is None else rows(tensor).index_select(0, inside)


def under_each_other(rows: Tensor, like: Tensor) -> Tensor:
    """What ``rows`` made, back in the shape and layout of a tensor (B, T, …)."""
    B, T, _ = like.shape
    if comes_first(like):
        return rows.reshape(T, B, -1).transpose(0, 1)
    return rows.reshape(B, T, -1)


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The same numbers, laid out as another tensor is."""
    if comes_first(like):
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    return tensor.contiguous()


def layout(like: Tensor) -> dict[str, int]:
    """Row b of step t is the (b * row_b + t * row_t)-th below each other."""
    B, T, _ = like.shape
    return {"row_b": 1, "row_t": B} if comes_first(like) else {"row_b": T, "row_t": 1}


def numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors by a name and their place."""
    return {f"{name}_{i}": tensor for i, tensor in enumerate(tensors)}


def room_for_kept(program: Program, wx: Tensor) -> Kept:
    """What the forward pass keeps, without numbers."""
    step = program.step
    return Kept(
        {p: inner(wx, step.state_sizes[p]) for p in sorted(program.befores)},
        {k: inner(wx, step.products[k].weight.columns) for k in program.values},
        inner(wx, max(1, program.saved_size)),  # it tells the layout too
    )


def room_for_gradients(program: Program, like: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """Of the projected input and of each product, without numbers; zeros where some stay so."""
    gaps = {(buffer.kind, buffer.key) for buffer in program.gaps}

    def gradient(columns: int, kind: str, key: int = 0) -> Tensor:
        made = inner(like, columns)
        return made.zero_() if (kind, key) in gaps else made

    return gradient(program.step.wx_size, "dwx"), {
        k: gradient(product.weight.rows, "dz", k)
        for k, product in enumerate(program.step.products)
        if k not in program.shared
    }


def kept_sizes(program: Program) -> list[int]:
    """Columns of each tensor of ``Kept.to_list``."""
    step = program.step
    befores = [step.state_sizes[p] for p in sorted(program.befores)]
    values = [step.products[k].weight.columns for k in program.values]
    return [*befores, *values, max(1, program.saved_size)]


def weight_gradients(
    program: Program,
    found: Gradients,
    kept: Kept,
    parameters: dict[str, Tensor],
    inside: Tensor | None = None,
) -> dict[str, Tensor]:
    """What the loops' gradients mean for the parameters: a product each, over rows and steps.

    Args:
        program: What was run.
        found: What its loops have found.
        kept: What was kept for them.
        parameters: As they were used.
        inside: Rows whose gradients are not zero; all if omitted.
    """
    gradients = dict(found.units)
    for k, product in enumerate(program.step.products):
        part, weight = program.part_of(k), product.weight
        value = kept.values[k] if part is None else kept.befores[part]
        grad = found.wx if k in program.shared else found.products[k]
        left, right = _picked(grad, inside).T, _picked(laid_out(value, grad), inside)
        if weight.rows == len(parameters[weight.name]) and weight.name not in gradients:
            gradients[weight.name] = left @ right
        else:
            total = gradients.setdefault(weight.name, torch.zeros_like(parameters[weight.name]))
            total[weight.offset : weight.offset + weight.rows].addmm_(left, right)
    return gradients


class _Fused(torch.autograd.Function):
    """Both passes of a loop, which gives way to the plain one when it is differentiated twice.

    The input's projection is inside: its result, the largest tensor of all, need not be kept,
    since only the way back through it is.
    """

    @staticmethod
    def forward(
        ctx: Any, loops: Loops, request: Request, names: tuple[str, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        x, state, parameters = _parted(request, names, tensors)
        random = _random_state(x) if request.cell.draws else None
        inside = _rows_inside(loops, request, x)
        way = _way_in(request, names, tensors, inside)
        used = numbers(request.program.step, parameters, x.dtype)
        y, final, kept = loops.forward(
            request.program,
            way.project(x, parameters),
            state,
            way.start,
            used,
            _order(request),
            save=True,
        )
        assert kept is not None  # it was asked for
        keep = kept.befores.values() if request.memory == "lean" else kept.to_list()
        ctx.loops, ctx.request, ctx.names, ctx.way = loops, request, names, way
        ctx.random, ctx.modes, ctx.inside = random, _modes(request.cell), inside
        ctx.set_materialize_grads(False)
        order = request.lengths, request.resets  # saved only so that torch sees them change
        ctx.save_for_backward(*tensors, *order, *keep)
        return y, *final

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        request, names, program = ctx.request, ctx.names, ctx.request.program
        needed = ctx.needs_input_grad[3:]
        saved = ctx.saved_tensors
        tensors, saved = saved[: len(needed)], saved[len(needed) + 2 :]
        if torch.is_grad_enabled():  # create_graph=True
            with _drawn_again(ctx.random, tensors[0]), _in_modes(request.cell, ctx.modes):
                return None, None, None, *_plain_gradients(request, names, tensors, grads, needed)
        x, _, parameters = _parted(request, names, tensors)
        used = numbers(program.step, parameters, x.dtype)
        if request.memory == "lean":
            kept = _computed_again(ctx.loops, program, ctx.way.project(x, parameters), used, saved)
        else:
            kept = Kept.from_list(program, saved)
        found = ctx.loops.backward(program, kept, grads[0], grads[1:], used, _order(request))
        weights = weight_gradients(program, found, kept, used, ctx.inside)
        here = (None, *found.initial, *(weights.get(name) for name in names))
        through = ctx.way.backward(found, x, parameters, needed)
        return None, None, None, *map(_total, here, through)


def _random_state(x: Tensor) -> Tensor:
    """Where the random numbers stand of the device that a tensor lies on."""
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


@contextmanager
def _drawn_again(random: Tensor | None, x: Tensor) -> Iterator[None]:
    """The same random numbers as from an earlier place on, if one is given."""
    if random is None:
        yield
        return
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        if x.is_cuda:
            torch.cuda.set_rng_state(random, x.device)
        else:
            torch.set_rng_state(random)
        yield


def _modes(cell: Cell) -> list[bool]:
    """Which of a cell's modules are in training."""
    return [module.training for module in cell.modules()]


@contextmanager
def _in_modes(cell: Cell, modes: Sequence[bool]) -> Iterator[None]:
    """The cell as it was in other modes, for what is computed again."""
    modules = list(cell.modules())
    now = [module.training for module in modules]
    try:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        yield
    finally:
        for module, mode in zip(modules, now, strict=True):
            module.training = mode


def _parted(
    request: Request, names: Sequence[str], tensors: Sequence[Tensor]
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """The tensors that a request is differentiated for: input, state, and parameters by name."""
    parts = len(request.state)
    parameters = dict(zip(names, tensors[1 + parts :], strict=True))
    return tensors[0], tuple(tensors[1 : 1 + parts]), parameters


def _rebuilt(request: Request, names: Sequence[str], tensors: Sequence[Tensor]) -> Request:
    """The request with other tensors."""
    x, state, parameters = _parted(request, names, tensors)
    return replace(request, cell=request.cell.bind(parameters), x=x, state=state)


def _total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


class _Way(Protocol):
    """From the inputs to the loops, and back.

    Attributes:
        start: The state that a reset puts in; empty where nothing is reset.
    """

    start: State

    def project(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """The projected input, (B, T, W)."""

    def backward(
        self, found: Gradients, x: Tensor, parameters: dict[str, Tensor], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """What the loops' gradients mean for all the tensors that the function is given."""


def _way_in(
    request: Request, names: Sequence[str], tensors: Sequence[Tensor], inside: Tensor | None
) -> _Way:
    """The short way, if the projection is one product and the start is fixed."""
    affine = request.projection
    with torch.enable_grad():
        start = request.start
    if affine is None or any(part.requires_grad for part in start):
        return _RecordedWay(request, names, tensors)
    return _AffineWay(start, names, inside, *affine)


class _AffineWay:
    """One weight and one bias."""

    def __init__(
        self,
        start: State,
        names: Sequence[str],
        inside: Tensor | None,
        weight: str,
        bias: str | None,
    ) -> None:
        self.start, self.names, self.inside = start, names, inside
        self.weight, self.bias = weight, bias

    def project(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        weight = parameters[self.weight]
        projected = inner(x, len(weight))
        out = rows(projected) if self.inside is None else x.new_empty(len(self.inside), len(weight))
        if self.bias is None:
            torch.mm(_picked(x, self.inside), weight.T, out=out)
        else:
            torch.addmm(parameters[self.bias], _picked(x, self.inside), weight.T, out=out)
        if self.inside is not None:
            rows(projected).index_copy_(0, self.inside, out)
        return projected

    def backward(
        self, found: Gradients, x: Tensor, parameters: dict[str, Tensor], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        flat, states = _picked(found.wx, self.inside), len(found.initial)
        wanted = dict(zip(self.names, needed[1 + states :], strict=True))
        gradients = {}
        if wanted[self.weight]:
            gradients[self.weight] = flat.T @ _picked(x, self.inside)
        if self.bias is not None and wanted[self.bias]:
            gradients[self.bias] = flat.sum(0)
        grad_x = None
        if needed[0]:
            grad_x = empty(x, x.shape[-1])
            if self.inside is None:
                torch.mm(flat, parameters[self.weight], out=rows(grad_x))
            else:
                within = flat @ parameters[self.weight]
                rows(grad_x.zero_()).index_copy_(0, self.inside, within)
        return grad_x, *(None,) * states, *(gradients.get(name) for name in self.names)


class _RecordedWay:
    """Whatever the cell does; back by what torch has recorded of it."""

    def __init__(self, request: Request, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        self._inputs = tuple(t.detach().requires_grad_(t.requires_grad) for t in tensors)
        rebuilt = _rebuilt(request, names, self._inputs)
        self._entering: list[Tensor] = []
        with torch.enable_grad():
            wx = project(rebuilt.cell, rebuilt.x)
            self.start = rebuilt.start
            self._entry = Entry.apply(self._entering, wx, *self.start)
        self._again = request.memory == "lean"  # masks cannot be drawn a second time
        self._wx: Tensor | None = wx.detach()

    def project(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        wx = self._wx
        assert wx is not None  # it is asked for once, and twice only in lean memory
        if not self._again:
            self._wx = None
        return wx

    def backward(
        self, found: Gradients, x: Tensor, parameters: dict[str, Tensor], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        inputs = [t for t in self._inputs if t.requires_grad]
        if not inputs or not self._entry.requires_grad:
            return [None] * len(self._inputs)
        self._entering[:] = found.wx, *found.start
        grads = torch.autograd.grad(self._entry, inputs, retain_graph=True, allow_unused=True)
        self._entering.clear()  # they need not live as long as the function does
        places = iter(grads)
        return [next(places) if t.requires_grad else None for t in self._inputs]


def _computed_again(
    loops: Loops, program: Program, wx: Tensor, used: dict[str, Tensor], saved: Sequence[Tensor]
) -> Kept:
    """What a lean forward pass threw away: every step of every row is a row of one large step."""
    befores = dict(zip(sorted(program.befores), saved, strict=True))
    flat = rows(wx)
    state = tuple(
        rows(laid_out(befores[p], wx)) if p in befores else flat.new_zeros(len(flat), size)
        for p, size in enumerate(program.step.state_sizes)
    )
    once = Order(None, None, False)
    _, _, again = loops.forward(program, flat[:, None], state, (), used, once, save=True)
    assert again is not None  # it was asked for
    values = {k: under_each_other(rows(value), wx) for k, value in again.values.items()}
    return Kept(befores, values, under_each_other(rows(again.saved), wx))


def _plain_gradients(
    request: Request,
    names: Sequence[str],
    tensors: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, from the plain loop."""
    y, state = reference.run(_rebuilt(request, names, tensors))
    pairs = [(o, g) for o, g in zip((y, *state), grads, strict=True) if g is not None]
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            [t for t, need in zip(tensors, needed, strict=True) if need],
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in needed]
