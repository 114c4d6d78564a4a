"""``Loops`` in Triton: the buffers of each pass, and which kernels run over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from seqnets.engine.buffers import (
    backward_buffers,
    final_gradients,
    forward_buffers,
    numbered,
)
from seqnets.engine.loops import Gradients, Grads, Inputs, Kept, Order, Results
from seqnets.engine.program import Program
from seqnets.engine.triton.access import device_of
from seqnets.engine.triton.kernel import Numbers
from seqnets.engine.triton.launch import Buffers, Pass, on_device
from seqnets.engine.triton.printer import print_pass
from seqnets.engine.triton.tiles import Tiles, choose


class TritonLoops:
    """``Loops`` in Triton.

    Args:
        mode: A mode of ``Tiles``; the best one for each pass if omitted.
    """

    skips_padding = False
    tiled = False

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode
        self._passes: dict[tuple[Program, str, Tiles], Pass] = {}
        self._ready: dict[Any, Pass] = {}  # by all that determines the tiles

    def tiles(self, program: Program, name: str, like: Tensor, B: int) -> Tiles:
        """The tiles of a pass over B rows, for a tensor's dtype and device."""
        parts = 2 if precision(like) == "tf32x3" else 1  # of each float32 operand
        size = parts * like.element_size()
        for mode in (self.mode, "grid", "step"):
            tiles = choose(program, name, B, size, device_of(like), mode)
            printed = self._passes.get((program, name, tiles))
            if printed is None or not printed.too_large:
                break
        return tiles

    def printed_pass(self, program: Program, name: str, like: Tensor, B: int) -> Pass:
        """A pass, printed on first use."""
        key = program, name, B, like.dtype, precision(like), like.device
        ready = self._ready.get(key)
        if ready is None or ready.too_large:
            ready = self._ready[key] = self._pass(program, name, self.tiles(program, name, like, B))
        return ready

    def _pass(self, program: Program, name: str, tiles: Tiles) -> Pass:
        key = program, name, tiles
        if key not in self._passes:
            self._passes[key] = Pass(print_pass(program, name, tiles), tiles)
        return self._passes[key]

    @property
    def resources(self) -> list[dict[str, Any]]:
        """The resources of all kernels that have run."""
        return [found for each in self._passes.values() for found in each.resources]

    def projects(self, program: Program) -> bool:
        """See ``Loops.projects``."""
        return False

    def forward(self, program: Program, inputs: Inputs, order: Order, save: bool) -> Results:
        """See ``Loops.forward``."""
        wx, (B, T, _) = inputs.wx, order.layout
        kernels = self.printed_pass(program, "forward", wx, B)
        (y, final, kept), shared = forward_buffers(program, inputs, order, save)
        buffers: Buffers = {**shared, **_order_buffers(order)}
        buffers |= _room_for_others(program, wx, B, save)
        buffers |= {
            f"reduced_{k}": _float(wx, B, reduction.value.width)
            for k, reduction in enumerate(program.step.reductions)
        }
        row_b, row_t = order.layout.row_b, order.layout.row_t
        numbers = _numbers(order, *((row_b, row_t, row_t) if save else (1, 0, B)))
        states: list[Tensor] = []
        if kernels.tiles.mode == "step":
            states = _first_states(program, inputs, order)
            buffers |= numbered("state", states)
            _keep_first(buffers, states, order, save)
        if not self._run(kernels, buffers, numbers, order, save):
            return self.forward(program, inputs, order, save)  # in another mode
        for part, turns in zip(final, states, strict=False):
            part.copy_(turns[T % 2])
        return y, final, kept

    def backward(
        self, kept: Kept, grads: Grads, parameters: dict[str, Tensor], order: Order
    ) -> Gradients:
        """See ``Loops.backward``."""
        program, (grad_y, *grad_final) = kept.program, grads
        step, like = program.step, kept.saved
        B, T, _ = order.layout
        kernels = self.printed_pass(program, "backward", like, B)
        pieces = kernels.tiles.pieces(B, T)  # each has sums of its own
        dwx, products, shared = backward_buffers(kept, grad_y, parameters, True)
        steps = kernels.tiles.mode == "step"
        make = torch.zeros if steps else torch.empty  # mode "step" accumulates, others write once
        units = None
        if program.units:
            rows = pieces * B, program.unit_size
            units = make(rows, dtype=torch.float32, device=like.device)
        initial = [like.new_empty(B, size) for size in step.state_sizes]
        start = [
            make(pieces, B, size, dtype=torch.float32, device=like.device)
            for size in (() if order.resets is None else step.state_sizes)
        ]
        buffers: Buffers = {**shared, **_order_buffers(order)}
        if units is not None:
            buffers["grad_units"] = units
        buffers |= numbered("grad_initial", initial) | numbered("grad_start", start)
        buffers |= _carries(program, like, B, grad_final) if steps else final_gradients(grad_final)
        buffers |= {
            f"grad_sum_{k}": _float(like, B, reduction.width)
            for k, reduction in enumerate(step.reductions)
        }
        if not self._run(kernels, buffers, _numbers(order, 1, 0, 0), order, True):
            return self.backward(kept, grads, parameters, order)  # in another mode
        return Gradients(
            dwx,
            products,
            None if units is None else units.sum(0).to(like.dtype),
            tuple(initial),
            tuple((part.sum(0) if pieces > 1 else part[0]).to(like.dtype) for part in start),
        )

    def _run(
        self, kernels: Pass, buffers: Buffers, numbers: Numbers, order: Order, save: bool
    ) -> bool:
        """Run a pass; False if it needs more than the device has, so that another mode is left."""
        like = buffers["saved"]  # every pass has it
        if kernels.tiles.mode == "grid":
            counters = 32 * kernels.tiles.groups  # each in its own cache line
            buffers["counter"] = torch.zeros(counters, dtype=torch.int32, device=like.device)
        if kernels.tiles.mode == "time":
            B, T = numbers.B, numbers.T
            numbers = numbers._replace(piece=kernels.tiles.piece(B, T))
            shape = kernels.scans, B, kernels.tiles.pieces(B, T), kernels.tiles.units[0][0]
            buffers |= {name: _float(like, *shape) for name in ("through", "ends")}
        try:
            with on_device(like.device):
                kernels.run(buffers, numbers, (save, order.reverse, precision(like)))
        except OutOfResources:
            if kernels.tiles.mode == "step":
                raise
            kernels.too_large = True
            return False
        return True


def _first_states(program: Program, inputs: Inputs, order: Order) -> list[Tensor]:
    """Double-buffered state parts for mode "step", with the state before the first step."""
    wx, initial, start, *_ = inputs
    sizes, B, first = program.step.state_sizes, order.layout.B, _first_step(order)
    states = [_float(wx, 2, B, size) for size in sizes]
    for p, part in enumerate(initial or [wx.new_zeros(B, size) for size in sizes]):
        if order.resets is not None:
            fresh = order.resets[:, first, None]
            if order.lengths is not None:
                fresh = fresh & (order.lengths > first)[:, None]
            part = torch.where(fresh, start[p], part)
        states[p][0] = part
    return states


def _keep_first(buffers: Buffers, states: list[Tensor], order: Order, save: bool) -> None:
    """Store the state before the first step where the first launch reads it."""
    first = _first_step(order)
    for p, part in enumerate(states):
        before = buffers.get(f"before_{p}")
        if before is None:
            continue
        tile = part[0]
        if order.lengths is not None:
            tile = torch.where((order.lengths > first)[:, None], tile, 0)
        (order.layout.by_step(before)[first] if save else before[0]).copy_(tile)


def _first_step(order: Order) -> int:
    """The step that runs first."""
    return order.layout.T - 1 if order.reverse else 0


def _carries(program: Program, like: Tensor, B: int, grad_final: Grads) -> Buffers:
    """Buffers through which launches of mode "step" pass gradients on, with those of the end."""
    carries = [_float(like, 2, B, size) for size in program.step.state_sizes]
    for carry, grad in zip(carries, grad_final, strict=True):
        carry[0] = 0 if grad is None else grad
    crossing = _float(like, B, max(1, program.crossing))
    return {**numbered("carries", carries), "dcross": crossing}


def _room_for_others(program: Program, wx: Tensor, B: int, save: bool) -> dict[str, Tensor]:
    """Buffers through which programs exchange what a forward pass does not keep."""
    step, rows = program.step, len(wx) if save else B
    values = [k for k in program.values if not save or k not in program.learned]
    found = {f"value_{k}": wx.new_empty(rows, step.products[k].weight.columns) for k in values}
    if save:
        return found
    parts = (program.part_of(k) for k in range(len(step.products)))
    found |= {
        f"before_{p}": wx.new_empty(2, B, step.state_sizes[p]) for p in parts if p is not None
    }
    return found | {"saved": wx.new_empty(B, max(1, program.saved_size))}


def precision(like: Tensor) -> str:
    """The precision of float32 products: TF32 where torch allows it for its own RNNs.

    Otherwise "tf32x3": three TF32 products, which are as exact as float32.
    """
    if like.dtype != torch.float32 or torch.backends.cudnn.allow_tf32:
        return "tf32"
    return "tf32x3"


def _float(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _order_buffers(order: Order) -> Buffers:
    found: Buffers = {} if order.lengths is None else {"lengths": order.lengths}
    if order.resets is not None:
        found["resets"] = order.resets.view(torch.uint8)
    return found


def _numbers(order: Order, kept_b: int, kept_t: int, turn_t: int) -> Numbers:
    layout, resets = order.layout, order.resets
    begins = layout.B, layout.T, layout.row_b, layout.row_t, kept_b, kept_t, turn_t
    return Numbers(*begins, *(() if resets is None else resets.stride()))
