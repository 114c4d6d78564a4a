"""Backend ``scan``: cells linear in their state, h_t = a_t h_{t-1} + b_t, parallel over time.

Those whose memory is a matrix run by ``matrix_memory/``.

On a GPU a step without products and reductions is printed as one Triton kernel with its scan. All
others, and all on a CPU, run by torch's operations on all steps at once, around a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from seqnets.engine import matrix_memory, triton
from seqnets.engine.evaluate import parameters_of, values_of
from seqnets.engine.graph import Untraceable
from seqnets.engine.lengths import last_step
from seqnets.engine.linear import linear_parts, recurrences
from seqnets.engine.linear_scan import earlier, linear_scan
from seqnets.engine.modes import refusal_of_operations
from seqnets.engine.pieces import cut, joined, repeated
from seqnets.engine.program import Program
from seqnets.engine.request import Request
from seqnets.engine.triton import access
from seqnets.typing import State

name = "scan"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    if matrix_memory.memory_of(request.cell) is not None:
        return matrix_memory.refusal(request)
    if request.memory == "lean":
        return "it keeps what each of its operations needs, and can keep no less"
    if _is_printed(request):
        return None
    if reason := refusal_of_operations(request.x):
        return reason
    if reason := request.untraceable:
        return reason
    if reason := _nonlinear(request.program, _names(request)):
        return f"the step is not linear in the state: {reason}"
    carried = linear_parts(request.program, _names(request))
    real = torch.float32, torch.float64
    if request.x.dtype not in real and any(len(linear.parts) == 2 for linear in carried):
        return f"two state parts form a complex number, and {request.x.dtype} has none"
    return None


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    if (cell := matrix_memory.memory_of(request.cell)) is not None:
        return matrix_memory.run(request, cell)
    if _is_printed(request):
        return triton.run(request, access.loops_over_time())
    step, pieces, reverse = request.program.step, request.plan.pieces, request.reverse
    wx, befores = request.project(request.clean_x), _Befores()
    values = values_of(step, wx, befores, parameters_of(step, request.tensors, wx.dtype))
    state, start = cut(request.state, pieces), cut(request.start, pieces)
    masks = request.valid, request.resets
    valid, resets = (None if mask is None else mask.unsqueeze(-1) for mask in masks)
    if resets is not None and valid is not None:
        resets = resets & valid
    afters: dict[int, Tensor] = {}

    for linear in linear_parts(request.program, _names(request)):
        first, anew = _as_one([state[p] for p in linear.parts]), None
        if resets is not None:
            anew = resets, _as_one([start[p] for p in linear.parts]).unsqueeze(1)
        shape = (*wx.shape[:2], first.shape[1])
        a, b = (_as_one([values[n] for n in nodes]).expand(shape) for nodes in (linear.a, linear.b))
        if linear.moves:
            after = b if valid is None else torch.where(valid, b, first.unsqueeze(1))
        else:
            after = linear_scan(*_within(a, b, valid, anew), first, reverse=reverse)
        befores.find(linear.parts, partial(_before, after, first, reverse, anew))
        others = after  # see a real step in padding too, where a count may be 0 and divide
        if valid is not None:
            others = torch.where(valid, after, (a * first.unsqueeze(1) + b).detach())
        parts = zip(linear.parts, _apart(after), _apart(others), strict=True)
        for p, made, seen in parts:
            afters[p] = made
            if step.state[p].op != "leaf":  # other nodes may depend on it
                values.setdefault(step.state[p], seen)

    for p, node in enumerate(step.state):
        if p not in afters:
            afters[p] = values[node].expand(*wx.shape[:2], step.state_sizes[p])
    last = partial(last_step, lengths=request.lengths, reverse=reverse)
    final = tuple(last(afters[p], part) for p, part in enumerate(state))
    y = afters[0].contiguous()
    return (y if valid is None else y.masked_fill(~valid, 0)), joined(final, pieces)


def _names(request: Request) -> tuple[str, ...]:
    """The name of each state part of the step."""
    return repeated(request.cell.states, request.plan.pieces)


def _within(
    a: Tensor, b: Tensor, valid: Tensor | None, anew: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Factors and summands of steps that leave padding alone, and begin anew after a reset.

    Args:
        a: Factors, (B, T, H).
        b: Summands, (B, T, H).
        valid: Which steps are within the lengths, (B, T, 1).
        anew: Before which steps the state is reset, (B, T, 1), and to what, (B, 1, H).
    """
    if valid is not None:
        a, b = torch.where(valid, a, 1), torch.where(valid, b, 0)
    if anew is not None:
        resets, start = anew
        a, b = torch.where(resets, 0, a), torch.where(resets, a * start + b, b)
    return a, b


def pays(request: Request) -> bool:
    """Whether it is expected to be faster than sequential loops."""
    if _is_printed(request):
        return access.over_time_pays(request.program, request.x)
    B, T, _ = request.x.shape
    long = request.x.is_cuda and T >= _LONG and B * request.cell.output_size <= _FEW
    return long and refusal(request) is None


_LONG, _FEW = 1024, 4096
"""Steps, and numbers per step, at which torch's operations took 0.55 of a kernel's time (LRU)."""


@lru_cache(maxsize=256)
def _nonlinear(program: Program, names: tuple[str, ...]) -> str | None:
    """Why a step is not linear in its state; None if it is."""
    try:
        linear_parts(program, names)
    except Untraceable as reason:
        return str(reason)
    return None


def detail(request: Request) -> str:
    """How a printed kernel divides a request's work, in words; empty where none runs."""
    return triton.detail(request, access.loops_over_time()) if _is_printed(request) else ""


def _is_printed(request: Request) -> bool:
    """Whether the steps and their scan run as one printed kernel."""
    if not request.x.is_cuda or torch.compiler.is_compiling() or triton.refusal(request):
        return False
    return recurrences(request.program) is not None


def _before(
    after: Tensor, first: Tensor, reverse: bool, anew: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, ...]:
    """The state parts that each step reads, after resets, (B, T, H) each."""
    before = earlier(after, first, reverse)
    return _apart(before if anew is None else torch.where(*anew, before))


def _as_one(parts: Sequence[Tensor]) -> Tensor:
    """One part unchanged, or two as a complex tensor."""
    return parts[0] if len(parts) == 1 else torch.complex(*parts)


def _apart(h: Tensor) -> tuple[Tensor, ...]:
    """The inverse of ``_as_one``."""
    return (h.real, h.imag) if h.is_complex() else (h,)


class _Befores(dict[int, Tensor]):
    """State parts before each step, computed lazily."""

    def __init__(self) -> None:
        super().__init__()
        self._ways: dict[int, tuple[Sequence[int], Callable[[], Sequence[Tensor]]]] = {}

    def find(self, parts: Sequence[int], way: Callable[[], Sequence[Tensor]]) -> None:
        """Register how some parts are computed together."""
        self._ways |= dict.fromkeys(parts, (parts, way))

    def __missing__(self, part: int) -> Tensor:
        parts, way = self._ways[part]
        self.update(zip(parts, way(), strict=True))
        return self[part]
