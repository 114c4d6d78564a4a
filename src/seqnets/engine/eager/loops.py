"""``Loops`` in torch's operations, a chunk of steps at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from seqnets.engine.buffers import room_for_kept
from seqnets.engine.eager.instructions import (
    FRESH,
    VALID,
    Backward,
    Forward,
    Hoisted,
    Tensors,
    named,
)
from seqnets.engine.evaluate import columns_of
from seqnets.engine.graph import COMPARISONS
from seqnets.engine.layout import Layout
from seqnets.engine.loops import Gradients, Grads, Inputs, Kept, Order, Results
from seqnets.engine.program import Program
from seqnets.engine.workspaces import room

_CHUNK = 2**18  # bytes of a state-sized value over the steps of a chunk

_forward, _backward = lru_cache(maxsize=256)(Forward), lru_cache(maxsize=256)(Backward)


def _given(like: Tensor, program: Program, parameters: dict[str, Tensor], order: Order) -> Tensors:
    """The inputs that both passes share, (T, B, ...) or the same for all steps."""
    B, T, _ = order.layout
    flat = ((name, parameter.flatten()) for name, parameter in parameters.items())
    given = named("parameter", flat) | {("zero", 0): like.new_zeros(B, 1)}
    for k, weight in enumerate(product.weight for product in program.step.products):
        given["weight", k] = weight.of(parameters[weight.name])
    if order.lengths is not None:
        steps = torch.arange(T, device=like.device)
        given[VALID] = (steps[:, None] < order.lengths)[..., None]
    if order.resets is not None:
        fresh = order.resets.T[..., None]
        given[FRESH] = fresh & given[VALID] if VALID in given else fresh
    return given


def _kept_by_step(kept: Kept, layout: Layout) -> Tensors:
    """What the forward pass kept, (T, B, ...), by node or by source and key."""
    found = named("state", ((p, layout.by_step(x)) for p, x in kept.befores.items()))
    whole = layout.by_step(kept.saved)
    for node, offset in kept.program.saved.items():
        saved = columns_of(whole, offset, node.width)
        found[node] = saved != 0 if node.op in COMPARISONS else saved
    return found


def _chunks(
    given: Tensors, layout: Layout, size: int, downwards: bool
) -> Iterator[tuple[slice, range, Hoisted]]:
    """Chunks of steps in execution order, and their hoisted values.

    Args:
        given: Inputs of all steps.
        layout: The number of rows and steps.
        size: Bytes of the widest state part of a row.
        downwards: Whether steps run from last to first.
    """
    B, T, _ = layout
    firsts = range(0, T, max(1, _CHUNK // max(1, B * size)))
    for first in firsts[::-1] if downwards else firsts:
        chunk = slice(first, min(first + firsts.step, T))
        steps = range(chunk.stop - first)
        hoisted = Hoisted(given)
        hoisted |= {k: x[chunk] for k, x in given.items() if x.dim() == 3}
        yield chunk, steps[::-1] if downwards else steps, hoisted


class _Loops:
    """``Loops`` in torch's operations, on any device."""

    skips_padding = False
    tiled = False

    def projects(self, program: Program) -> bool:
        """See ``Loops.projects``."""
        return False

    def forward(self, program: Program, inputs: Inputs, order: Order, save: bool) -> Results:
        wx, initial, start, parameters, _ = inputs
        step, layout = program.step, order.layout
        given = _given(wx, program, parameters, order) | named("start", enumerate(start))
        given["wx", None] = layout.by_step(wx)
        for k in range(len(step.products)):
            given["weight", k] = given["weight", k].t().contiguous()
        code = _forward(program, save, VALID in given, FRESH in given)
        y = layout.empty(wx, step.state_sizes[0])
        kept = room_for_kept(program, wx) if save else None
        outs = [y.transpose(0, 1), *map(layout.by_step, () if kept is None else kept.tensors)]
        sizes = [out.shape[2] for out in outs]
        zeros = (wx.new_zeros(layout.B, size) for size in step.state_sizes)
        carried = named("state", enumerate(initial or zeros))
        size = max(step.state_sizes) * wx.element_size()
        for chunk, steps, hoisted in _chunks(given, layout, size, order.reverse):
            code.begin_products(hoisted, len(steps))
            hoisted["out", 0] = out = wx.new_empty(len(steps), layout.B, sum(sizes))
            hoisted |= carried
            carried = code.run(hoisted, steps)
            for whole, part in zip(outs, hoisted.valid(out).split(sizes, -1), strict=True):
                whole[chunk].copy_(part)
        final = tuple(carried["state", p].clone() for p in range(len(step.state_sizes)))
        return y, final, kept

    def backward(
        self, kept: Kept, grads: Grads, parameters: dict[str, Tensor], order: Order
    ) -> Gradients:
        program, (grad_y, *grad_final) = kept.program, grads
        step, like, layout = program.step, kept.saved, order.layout
        B, T, _ = layout
        dwx = room(like, len(like), step.wx_size)
        if not program.shared:
            dwx.zero_()
        dz = {
            k: dwx if k in program.shared else room(like, len(like), step.products[k].weight.rows)
            for k in program.learned | program.shared
        }
        units = like.new_zeros(program.unit_size)
        zeros = [like.new_zeros(B, size) for size in step.state_sizes]

        given = _given(like, program, parameters, order) | _kept_by_step(kept, layout)
        came = zeros[0].expand(T, -1, -1) if grad_y is None else layout.by_step(grad_y)
        given["grad_y", 0] = came
        given |= named("out", ((k, layout.by_step(grad)) for k, grad in dz.items()))
        code = _backward(program, VALID in given, FRESH in given)
        carried = named("start", enumerate(zeros)) | named("carry", enumerate(zeros))
        carried |= named("carry", ((p, x) for p, x in enumerate(grad_final) if x is not None))
        widths = [node.width for node in code.out]
        size = max(step.state_sizes) * like.element_size()
        for chunk, steps, hoisted in _chunks(given, layout, size, not order.reverse):
            hoisted["grad_y", 0] = hoisted.valid(hoisted["grad_y", 0])
            hoisted["out", None] = out = like.new_empty(len(steps), B, sum(widths))
            hoisted |= carried
            carried |= code.run(hoisted, steps)
            parts = hoisted.valid(out).split(widths, -1)
            code.add_gradients(parts, layout.by_step(dwx)[chunk], units)
        for whole in dz.values() if VALID in given else ():
            layout.by_step(whole).masked_fill_(~given[VALID], 0)
        states = range(len(zeros))
        initial = tuple(carried["carry", p].clone() for p in states)
        start = tuple(carried["start", p].clone() for p in states if FRESH in given)
        return Gradients(dwx, dz, units, initial, start)


LOOPS = _Loops()
