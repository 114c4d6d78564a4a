"""``Loops`` in Triton: compiles printed kernels, and launches them on tensors."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from seqnets.engine.loops import (
    Gradients,
    Kept,
    Order,
    kept_buffers,
    numbered,
    parameter_buffers,
    room_for_gradients,
    room_for_kept,
)
from seqnets.engine.program import Program
from seqnets.engine.triton import library, over_time, printer
from seqnets.engine.triton.access import device_of, interpreted
from seqnets.engine.triton.kernel import Kernel, Numbers
from seqnets.engine.triton.tiles import Tiles, choose
from seqnets.typing import State

INTERPRETED = interpreted()

_Buffers = dict[str, Tensor | None]
_Constants = tuple[bool, bool, str]  # SAVE, REVERSE and PRECISION
_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass(frozen=True)
class Resources:
    """The resources that a compiled kernel uses.

    Attributes:
        kernel: The kernel's name.
        mode: See ``Tiles``.
        registers: Registers per thread.
        spills: Spilled bytes per thread.
        shared: Bytes of shared memory per program.
        warps: Warps per program.
    """

    kernel: str
    mode: str
    registers: int
    spills: int
    shared: int
    warps: int


class Pass:
    """The kernels of a pass over time, for some tiles.

    Attributes:
        source: Their source.
        tiles: How they are launched.
        scans: Number of scans over time for each unit.
        too_large: Whether a launch failed for lack of resources.
    """

    too_large = False

    def __init__(self, kernels: Sequence[Kernel], tiles: Tiles) -> None:
        # With numpy 2.4 or newer the interpreter supports only constant loop bounds.
        constants = ["T"] if INTERPRETED else []
        self.source = "\n\n".join(kernel.text(constants) for kernel in kernels)
        self.tiles = tiles
        self.scans = max(kernel.scans for kernel in kernels)
        self._pointers = {kernel.name: kernel.pointers for kernel in kernels}
        self.functions = _compiled(self.source, tuple(self._pointers))
        self._compiled: dict[Any, Any] = {}

    def run(self, buffers: _Buffers, numbers: Numbers, constants: _Constants) -> None:
        """Run all steps."""
        names = list(self.functions)
        if self.tiles.mode == "time":
            pieces = self.tiles.pieces(numbers.B, numbers.T)
            for name, n in zip(names, (pieces - 1, pieces), strict=True):
                if n:
                    grid = self.tiles.programs * numbers.B, n, 1
                    self._launch(name, buffers, numbers, constants, grid)
            return
        if self.tiles.mode != "step":
            self._launch(names[0], buffers, numbers, constants)
            return
        for i in range(numbers.T):
            for name in names:
                if not name.endswith("_end"):
                    self._launch(name, buffers, numbers._replace(i=i), constants)
        if names[-1].endswith("_end"):
            self._launch(names[-1], buffers, numbers._replace(i=numbers.T), constants)

    def _launch(
        self,
        name: str,
        buffers: _Buffers,
        numbers: Numbers,
        constants: _Constants,
        grid: tuple[int, ...] = (),
    ) -> None:
        tensors = [buffers.get(pointer) for pointer in self._pointers[name]]
        rest = *numbers, *constants
        grid = grid or (self.tiles.programs, self.tiles.groups, 1)
        if INTERPRETED:
            self.functions[name][grid](*tensors, *rest)
            return
        # A launch cache by Triton's own specialisation key, since Triton's lookup takes longer than
        # a launch. One buffer's dtype determines all, and raw addresses skip checks of tensors.
        places = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        kind = tuple([None if place is None else place % 16 for place in places])
        saved = buffers["saved"]
        assert saved is not None
        key = name, saved.dtype, kind, constants, torch.cuda.current_device()
        if key in self._compiled:
            self._compiled[key][grid](*places, *rest)
            return
        options: dict[str, Any] = {"num_warps": self.tiles.warps}
        if self.tiles.mode == "grid":
            options["launch_cooperative_grid"] = True  # fails rather than deadlocks
        self._compiled[key] = self.functions[name][grid](*tensors, *rest, **options)

    @property
    def resources(self) -> list[Resources]:
        """The resources of the kernels that have run."""
        return [
            Resources(
                key[0],
                self.tiles.mode,
                kernel.n_regs,
                kernel.n_spills,
                kernel.metadata.shared,
                self.tiles.warps,
            )
            for key, kernel in self._compiled.items()
        ]


def _compiled(source: str, names: Sequence[str]) -> dict[str, Any]:
    """Define the functions of a source, which Triton and tracebacks find in ``linecache``."""
    file = f"<seqnets kernels {abs(hash(source)):x}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    scope = {name: value for name, value in vars(library).items() if not name.startswith("_")}
    scope |= {"triton": triton, "tl": tl, "__name__": library.__name__}
    exec(compile(source, file, "exec"), scope)  # text that was printed in this process
    return {name: scope[name] for name in names}


def _again_in_steps(run: Callable[_P, _T]) -> Callable[_P, _T]:
    """Retry a pass in mode "step" if its kernels exceed the device's resources."""

    @wraps(run)
    def run_within_limits(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return run(*args, **kwargs)
        except OutOfResources:  # the pass is marked as too large now
            return run(*args, **kwargs)

    return run_within_limits


class TritonLoops:
    """``Loops`` in Triton.

    Args:
        mode: A mode of ``Tiles``; the best one for each pass if omitted.
    """

    skips_padding = False

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode
        self._passes: dict[tuple[Program, str, Tiles], Pass] = {}
        self._ready: dict[Any, Pass] = {}  # by all that determines the tiles

    def tiles(self, program: Program, name: str, like: Tensor, B: int) -> Tiles:
        """The tiles of a pass over B rows, for a tensor's dtype and device."""
        parts = 2 if precision(like) == "tf32x3" else 1  # of each float32 operand
        size = parts * like.element_size()
        tiles = choose(program, name, B, size, device_of(like), self.mode)
        printed = self._passes.get((program, name, tiles))
        if printed is not None and printed.too_large:
            return choose(program, name, B, size, device_of(like), "step")
        return tiles

    def pass_(self, program: Program, name: str, like: Tensor, B: int) -> Pass:
        """A pass, printed on first use."""
        key = program, name, B, like.dtype, precision(like), like.device
        ready = self._ready.get(key)
        if ready is None or ready.too_large:
            ready = self._ready[key] = self._pass(program, name, self.tiles(program, name, like, B))
        return ready

    def _pass(self, program: Program, name: str, tiles: Tiles) -> Pass:
        key = program, name, tiles
        if key not in self._passes:
            writer = over_time if tiles.mode == "time" else printer
            self._passes[key] = Pass(getattr(writer, f"print_{name}")(program, tiles), tiles)
        return self._passes[key]

    @property
    def resources(self) -> list[Resources]:
        """The resources of all kernels that have run."""
        return [found for each in self._passes.values() for found in each.resources]

    @_again_in_steps
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
        """See ``Loops.forward``."""
        step = program.step
        B, T, _ = order.layout
        run = self.pass_(program, "forward", wx, B)
        initial = tuple(part.contiguous() for part in initial)
        start = tuple(part.contiguous() for part in start)
        y = order.layout.empty(wx, step.state_sizes[0])
        final = tuple(wx.new_empty(B, size) for size in step.state_sizes)
        kept = room_for_kept(program, wx) if save else None
        buffers = _order(order) | {"wx": wx, "y": y}
        buffers |= _room_for_a_step(program, wx, B) if kept is None else kept_buffers(program, kept)
        buffers |= numbered("initial", initial) | numbered("start", start)
        buffers |= numbered("final", final) | parameter_buffers(program, parameters)
        buffers |= {
            f"reduced_{k}": _float(wx, B, reduction.value.width)
            for k, reduction in enumerate(step.reductions)
        }
        row_b, row_t = order.layout.row_b, order.layout.row_t
        numbers = _numbers(order, *((row_b, row_t, row_t) if save else (1, 0, B)))
        states: list[Tensor] = []
        if run.tiles.mode == "step":
            states = self._begin(program, wx, initial, start, order)
            buffers |= numbered("state", states)
            self._keep_first(buffers, states, order, save)
        self._run(run, buffers, numbers, order, save)
        for part, turns in zip(final, states, strict=False):
            part.copy_(turns[T % 2])
        return y, final, kept

    def _begin(
        self, program: Program, wx: Tensor, initial: State, start: State, order: Order
    ) -> list[Tensor]:
        """Double-buffered state parts for mode "step", with the state before the first step."""
        sizes, (B, T, _) = program.step.state_sizes, order.layout
        states = [_float(wx, 2, B, size) for size in sizes]
        for p, part in enumerate(initial or [wx.new_zeros(B, size) for size in sizes]):
            if order.resets is not None:
                first = T - 1 if order.reverse else 0
                fresh = order.resets[:, first, None]
                if order.lengths is not None:
                    fresh = fresh & (order.lengths > first)[:, None]
                part = torch.where(fresh, start[p], part)
            states[p][0] = part
        return states

    def _keep_first(
        self, buffers: _Buffers, states: list[Tensor], order: Order, save: bool
    ) -> None:
        """Store the state before the first step where the first launch reads it."""
        first = order.layout.T - 1 if order.reverse else 0
        for p, part in enumerate(states):
            before = buffers.get(f"before_{p}")
            if before is None:
                continue
            tile = part[0]
            if order.lengths is not None:
                tile = torch.where((order.lengths > first)[:, None], tile, 0)
            (order.layout.by_step(before)[first] if save else before[0]).copy_(tile)

    @_again_in_steps
    def backward(
        self,
        program: Program,
        kept: Kept,
        grad_y: Tensor | None,
        grad_final: Sequence[Tensor | None],
        parameters: dict[str, Tensor],
        order: Order,
    ) -> Gradients:
        """See ``Loops.backward``."""
        step, like = program.step, kept.saved
        B, T, _ = order.layout
        run = self.pass_(program, "backward", like, B)
        pieces = run.tiles.pieces(B, T)  # each has sums of its own
        dwx, products = room_for_gradients(program, like)
        steps = run.tiles.mode == "step"
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
        buffers = _order(order) | {"grad_wx": dwx, "grad_units": units}
        buffers |= kept_buffers(program, kept)
        buffers |= {f"grad_z_{k}": grad for k, grad in products.items()}
        buffers |= numbered("grad_initial", initial) | numbered("grad_start", start)
        buffers |= parameter_buffers(program, parameters)
        if grad_y is not None:
            buffers["grad_y"] = grad_y.contiguous()
        incoming = _carries if steps else _final_gradients
        buffers |= incoming(program, like, B, grad_final)
        buffers |= {
            f"grad_sum_{k}": _float(like, B, reduction.width)
            for k, reduction in enumerate(step.reductions)
        }
        self._run(run, buffers, _numbers(order, 1, 0, 0), order, True)

        return Gradients(
            dwx,
            products,
            None if units is None else units.sum(0).to(like.dtype),
            tuple(initial),
            tuple((part.sum(0) if pieces > 1 else part[0]).to(like.dtype) for part in start),
        )

    def _run(
        self, run: Pass, buffers: _Buffers, numbers: Numbers, order: Order, save: bool
    ) -> None:
        like = buffers["saved"]
        assert like is not None  # every pass has it
        if run.tiles.mode == "grid":
            counters = 32 * run.tiles.groups  # each in its own cache line
            buffers["counter"] = torch.zeros(counters, dtype=torch.int32, device=like.device)
        if run.tiles.mode == "time":
            B, T = numbers.B, numbers.T
            numbers = numbers._replace(piece=run.tiles.piece(B, T))
            shape = run.scans, B, run.tiles.pieces(B, T), run.tiles.units[0][0]
            buffers |= {name: _float(like, *shape) for name in ("through", "ends")}
        try:
            with _on(like.device):
                run.run(buffers, numbers, (save, order.reverse, precision(like)))
        except OutOfResources:
            run.too_large = True
            raise


def _final_gradients(
    program: Program, like: Tensor, B: int, grad_final: Sequence[Tensor | None]
) -> _Buffers:
    """Buffers of the gradients of the final state."""
    parts = enumerate(grad_final)
    return {f"grad_final_{p}": None if grad is None else grad.contiguous() for p, grad in parts}


def _carries(
    program: Program, like: Tensor, B: int, grad_final: Sequence[Tensor | None]
) -> _Buffers:
    """Buffers through which launches of mode "step" pass gradients on, with those of the end."""
    carries = [_float(like, 2, B, size) for size in program.step.state_sizes]
    for carry, grad in zip(carries, grad_final, strict=True):
        carry[0] = 0 if grad is None else grad
    crossing = _float(like, B, max(1, program.crossing))
    return {**numbered("carries", carries), "dcross": crossing}


def _room_for_a_step(program: Program, wx: Tensor, B: int) -> dict[str, Tensor]:
    """Buffers of a forward pass that keeps nothing: those that programs exchange data through."""
    step = program.step
    parts = (program.part_of(k) for k in range(len(step.products)))
    found = {f"before_{p}": wx.new_empty(2, B, step.state_sizes[p]) for p in parts if p is not None}
    found |= {
        f"value_{k}": wx.new_empty(B, step.products[k].weight.columns) for k in program.values
    }
    return found | {"saved": wx.new_empty(B, max(1, program.saved_size))}


def precision(like: Tensor) -> str:
    """The precision of float32 products: TF32 where torch allows it for its own RNNs.

    Otherwise "tf32x3": three TF32 products, which are as exact as float32.
    """
    if like.dtype != torch.float32 or torch.backends.cudnn.allow_tf32:
        return "tf32"
    return "tf32x3"


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which launches go to a device's current stream."""
    here = device.type != "cuda" or device.index == torch.cuda.current_device()
    return _HERE if here else torch.cuda.device(device)


_HERE = nullcontext()


def _float(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _order(order: Order) -> _Buffers:
    resets = order.resets
    return {
        "lengths": order.lengths,
        "resets": None if resets is None else resets.view(torch.uint8),
    }


def _numbers(order: Order, kept_b: int, kept_t: int, turn_t: int) -> Numbers:
    layout, resets = order.layout, order.resets
    begins = layout.B, layout.T, layout.row_b, layout.row_t, kept_b, kept_t, turn_t
    return Numbers(*begins, *(() if resets is None else resets.stride()))
