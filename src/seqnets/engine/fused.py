"""The autograd function around a ``Loops`` implementation, shared by C, Triton and eager.

It projects the input, runs the forward loops, saves what the backward loops need, and turns their
gradients into those of the cell's tensors. Second derivatives fall back to the plain loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from seqnets.cells.given import autocasts
from seqnets.engine import reference
from seqnets.engine.evaluate import parameters_of
from seqnets.engine.gradients import parameter_gradients
from seqnets.engine.layout import Layout, layout_of
from seqnets.engine.loops import Inputs, Kept, Loops, Order, check_saved, make_order
from seqnets.engine.modes import is_batched
from seqnets.engine.pieces import cut, joined
from seqnets.engine.program import Program
from seqnets.engine.projection import make_projection, project, rows_inside
from seqnets.engine.recompute import drawn_again, in_modes, modes_of, random_state
from seqnets.engine.request import Request, parted, rebuilt
from seqnets.typing import State


def run(loops: Loops, request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step.

    Args:
        loops: The implementation that runs the program.
        request: The request, whose step can be traced.
    """
    parameters = request.tensors
    tensors = (request.clean_x, *(request.given or ()), *parameters.values())
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        lean = request.memory == "lean" and request.x.shape[1] > _LEAN_STEPS
        if lean and request.plan.per_step:  # else a mask, say, is of the whole sequence
            return _in_chunks(loops, request)
        function = _named(type(request.cell).__name__)
        y, *state = function.apply(loops, request, tuple(parameters), *tensors)
        return y, tuple(state)
    plan, order = request.plan, _order(request, tensors[0])
    wx, projection = project(loops, request, order.layout, tensors[0], parameters)
    used = parameters_of(plan.program.step, parameters, wx.dtype)
    state, start = cut(request.given or (), plan.pieces), cut(request.start, plan.pieces)
    inputs = Inputs(wx, state, start, used, projection)
    y, final, _ = loops.forward(plan.program, inputs, order, save=False)
    return y, joined(final, plan.pieces)


def _order(request: Request, x: Tensor) -> Order:
    """The request's order of steps, for inputs that may be a copy of its own."""
    return make_order(layout_of(x), request.lengths, request.resets, request.reverse)


_LEAN_STEPS = 64  # steps per chunk of lean memory, recomputed at a time


def _in_chunks(loops: Loops, request: Request) -> tuple[Tensor, State]:
    """Run chunk by chunk, so that the backward pass recomputes one chunk at a time."""
    state = request.given
    outputs: list[Tensor] = []
    chunks = list(enumerate(request.x.split(_LEAN_STEPS, 1)))  # slices would each have a gradient
    for place, x in reversed(chunks) if request.reverse else chunks:  # as large as the input's
        first = place * _LEAN_STEPS
        steps, lengths, resets = slice(first, first + _LEAN_STEPS), request.lengths, request.resets
        chunk = replace(
            request,
            x=x,
            given=state,
            lengths=None if lengths is None else (lengths - first).clamp(0, x.shape[1]),
            resets=None if resets is None else resets[:, steps],
        )
        chunk.known_plan = request.plan
        y, state = run(loops, chunk)
        outputs.append(y)
    assert state is not None  # there are more steps than a chunk has
    return torch.cat(outputs[::-1] if request.reverse else outputs, 1), state


class _Fused(torch.autograd.Function):
    """Both passes of a loop; differentiated twice, it is recomputed by the plain loop.

    The input's projection is inside, so that its result, the largest tensor of all, need not be
    kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, loops: Loops, request: Request, names: tuple[str, ...], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        x, parameters, plan = tensors[0], request.tensors, request.plan
        random = random_state(x) if plan.draws else None
        order = _order(request, x)
        inside = rows_inside(loops, request, order.layout)
        projection = make_projection(loops, request, order.layout, names, tensors, inside)
        used = parameters_of(plan.program.step, parameters, x.dtype)
        wx, affine = projection.project(x, parameters)
        state, start = cut(request.given or (), plan.pieces), cut(projection.start, plan.pieces)
        inputs = Inputs(wx, state, start, used, affine)
        y, final, kept = loops.forward(plan.program, inputs, order, save=True)
        assert kept is not None  # it was asked for
        # No tensor beside those that are saved: where a checkpoint frees these, it frees the input;
        # not where the projection is recorded, whose graph holds it.
        ctx.loops, ctx.names, ctx.projection = loops, names, projection
        ctx.cell, ctx.modes, ctx.random = request.cell, modes_of(request.cell), random
        ctx.plan, ctx.lean = plan, request.memory == "lean"
        ctx.layout, ctx.inside, ctx.reverse = order.layout, inside, request.reverse
        ctx.dtype = x.dtype
        ctx.set_materialize_grads(False)
        keep = kept.befores.values() if ctx.lean else kept.tensors
        ctx.save_for_backward(*tensors, order.lengths, order.resets, *keep)
        return y, *joined(final, plan.pieces)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: a checkpoint gives them no second time
        if not autocasts(saved[0]):
            return _gradients(ctx, saved, grads)
        # products here would be rounded, and those of a sum to two dtypes
        with torch.autocast(saved[0].device.type, enabled=False):
            return _gradients(ctx, saved, grads)


@cache
def _named(cell: str) -> type[_Fused]:
    """The function by a cell's name, which profilers and ``grad_fn`` show."""
    return type(cell, (_Fused,), {})


def _gradients(
    ctx: Any, saved: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients of all arguments, from what was saved."""
    names, needed = ctx.names, ctx.needs_input_grad[3:]
    count = len(needed)
    tensors, (lengths, resets, *saved) = saved[:count], saved[count:]
    check_saved(type(ctx.cell).__name__, ctx.dtype, (tensors[0], *saved))
    order = make_order(ctx.layout, lengths, resets, ctx.reverse)
    if torch.is_grad_enabled() or any(map(is_batched, grads)):  # create_graph=True, say
        return None, None, None, *_by_the_plain_loop(ctx, tensors, order, grads, needed)
    x, given, parameters = parted(names, tensors)
    program, pieces = ctx.plan.program, ctx.plan.pieces
    used = parameters_of(program.step, parameters, x.dtype)
    saved = [*map(Tensor.contiguous, saved)]  # hooks may give them back in another layout
    if ctx.lean:
        wx, affine = ctx.projection.project(x, parameters)
        kept = _computed_again(ctx.loops, program, Inputs(wx, (), (), used, affine), saved)
    else:
        kept = Kept(program, saved)
    grad_y = None if grads[0] is None else ctx.layout.rows(grads[0])
    found = ctx.loops.backward(kept, (grad_y, *cut(grads[1:], pieces)), used, order)
    found.initial = joined(found.initial, pieces) if given else ()
    found.start = joined(found.start, pieces)
    wanted = {*compress(names, needed[count - len(names) :])}
    of_parameters = parameter_gradients(
        program, found, kept, used, wanted, ctx.inside, ctx.loops.tiled
    )
    here = (None, *found.initial, *map(of_parameters.get, names))
    through = ctx.projection.backward(found, x, parameters, needed)
    return None, None, None, *map(_total, here, through)


def _by_the_plain_loop(
    ctx: Any,
    tensors: Sequence[Tensor],
    order: Order,
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of all tensors, which can be differentiated again."""
    x, given, _ = parted(ctx.names, tensors)
    request = Request(ctx.cell, x, given or None, order.lengths, order.resets, order.reverse)

    def run(given: Sequence[Tensor]) -> tuple[Tensor, State]:
        return reference.run(rebuilt(request, ctx.names, given))

    with drawn_again(ctx.random, x), in_modes(ctx.cell, ctx.modes):
        return reference.gradients_of(run, tensors, grads, needed)


def _total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _computed_again(
    loops: Loops, program: Program, inputs: Inputs, saved: Sequence[Tensor]
) -> Kept:
    """Recompute what a lean forward pass discarded: all steps at once, as rows of a single step."""
    wx = inputs.wx
    befores = dict(zip(program.befores, saved, strict=True))
    state = tuple(
        befores[p] if p in befores else wx.new_zeros(len(wx), size)
        for p, size in enumerate(program.step.state_sizes)
    )
    once = Order(Layout(len(wx), 1))
    _, _, again = loops.forward(program, inputs._replace(initial=state), once, save=True)
    assert again is not None  # it was asked for
    return Kept(program, [*saved, *again.tensors[len(saved) :]])
