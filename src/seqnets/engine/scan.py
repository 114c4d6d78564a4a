"""Backend ``scan``: cells linear in their state, h_t = a_t h_{t-1} + b_t, parallel over time.

On a GPU a step without products and reductions is printed as one Triton kernel with its scan. All
others, and all on a CPU, run by torch's operations on all steps at once, around a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqnets.engine import triton
from seqnets.engine.evaluate import numbers, values_of
from seqnets.engine.graph import Untraceable
from seqnets.engine.linear import linear_parts, recurrences
from seqnets.engine.modes import refusal_of_operations
from seqnets.engine.pieces import cut, joined, repeated
from seqnets.engine.program import Program
from seqnets.engine.request import Request
from seqnets.engine.triton import access
from seqnets.typing import State

name = "scan"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
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
    if _is_printed(request):
        return triton.run(request, access.loops_over_time())
    step = request.program.step
    wx = request.project(request.clean_x)
    befores = _Befores()
    parameters = numbers(step, request.tensors, wx.dtype)
    values = values_of(step, wx, befores, parameters)
    valid = None if request.valid is None else request.valid.unsqueeze(-1)
    resets = None if request.resets is None else request.resets.unsqueeze(-1)
    if resets is not None and valid is not None:
        resets = resets & valid
    pieces = request.plan.pieces
    state, start = cut(request.state, pieces), cut(request.start, pieces)
    afters: dict[int, Tensor] = {}

    for linear in linear_parts(request.program, _names(request)):
        first = _joined([state[p] for p in linear.parts])
        shape = (*wx.shape[:2], first.shape[1])
        a, b = (_joined([values[n] for n in nodes]).expand(shape) for nodes in (linear.a, linear.b))
        anew = None
        if resets is not None:
            anew = resets, _joined([start[p] for p in linear.parts]).unsqueeze(1)
        if linear.moves:
            after = b if valid is None else torch.where(valid, b, first.unsqueeze(1))
        else:
            after = linear_scan(*_within(a, b, valid, anew), first, reverse=request.reverse)
        befores.find(linear.parts, partial(_before, after, first, request.reverse, anew))
        for p, made in zip(linear.parts, _parted(after), strict=True):
            afters[p] = made
            if step.state[p].op != "leaf":  # other nodes may depend on it
                values.setdefault(step.state[p], made)

    for p, node in enumerate(step.state):
        if p not in afters:
            afters[p] = values[node].expand(*wx.shape[:2], step.state_sizes[p])
    final = tuple(_last(request, afters[p], part) for p, part in enumerate(state))
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


def linear_scan(a: Tensor, b: Tensor, first: Tensor, *, reverse: bool = False) -> Tensor:
    """Every h_t = a_t h_{t-1} + b_t, (B, T, H), in about 3 sqrt(T) operations or 2 kernels.

    Args:
        a: Factors, (B, T, H); real or complex, as all three arguments.
        b: Summands, (B, T, H).
        first: The h before the first step, (B, H).
        reverse: Whether time runs backwards.
    """
    return _Scan.apply(a, b, first, reverse)


class _Scan(torch.autograd.Function):
    """The scan; its derivative is a scan in the other direction, to any order."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
        kernels = _kernels(b)
        h = kernels.forward(a, b, first, reverse) if kernels else _scan(a, b, first, reverse)
        ctx.save_for_backward(a, h, first)
        ctx.reverse = reverse
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, h, first = ctx.saved_tensors
        kernels = _kernels(h)
        if kernels and not torch.is_grad_enabled():
            return *kernels.backward(a, h, first, grad, ctx.reverse), None
        a, h, first = a.conj(), h.conj(), first.conj()
        nothing = torch.zeros_like(first)
        remains = _earlier(a, nothing, not ctx.reverse)
        total = linear_scan(remains, grad, nothing, reverse=not ctx.reverse)
        begins = -1 if ctx.reverse else 0
        grad_first = a[:, begins] * total[:, begins] if ctx.needs_input_grad[2] else None
        return total * _earlier(h, first, ctx.reverse), total, grad_first, None


def _kernels(like: Tensor) -> Any | None:
    """The scan's Triton kernels for tensors like this; None where torch's operations run it."""
    if not like.is_cuda or access.missing():
        return None
    from seqnets.engine.triton import scan as kernels  # Triton takes a second to load

    return kernels if like.dtype in kernels.DTYPES else None


def _scan(a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """All full chunks in parallel, and the remainder as one more chunk."""
    T = a.shape[1]
    size = _chunk_size(a)
    whole = T // size * size
    parts = [(slice(0, whole), size), (slice(whole, T), T - whole)]
    h = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    for steps, n in reversed(parts) if reverse else parts:
        if steps.stop > steps.start:
            first = _scan_chunks(a[:, steps], b[:, steps], first, h[:, steps], n, reverse)
    return h


def _chunk_size(a: Tensor) -> int:
    """Steps per chunk: all of them where one step is work enough for an operation."""
    B, T, H = a.shape
    return T if a.device.type == "cpu" and B * H >= _ENOUGH else max(1, round(T**0.5))


_ENOUGH = 2**12  # numbers: an operation then takes longer than calling it (measured)


def _scan_chunks(
    a: Tensor, b: Tensor, first: Tensor, out: Tensor, size: int, reverse: bool
) -> Tensor:
    """Scan each chunk from zero, then add what earlier chunks contribute; returns the last h."""
    a, b, h = (tensor.unflatten(1, (-1, size)) for tensor in (a, b, out))
    order = range(size)[::-1] if reverse else range(size)
    a_at, b_at, h_at = a.unbind(2), b.unbind(2), h.unbind(2)
    if a.shape[1] == 1:
        before = first.unsqueeze(1)
        for i in order:
            before = torch.addcmul(b_at[i], a_at[i], before, out=h_at[i])
        return before.squeeze(1)

    through = torch.empty(a.shape, dtype=a.dtype, device=a.device)  # cumulative product of a
    through_at = through.unbind(2)
    h_at[order[0]].copy_(b_at[order[0]])
    through_at[order[0]].copy_(a_at[order[0]])
    for last, i in pairwise(order):
        torch.addcmul(b_at[i], a_at[i], h_at[last], out=h_at[i])
        torch.mul(a_at[i], through_at[last], out=through_at[i])
    h_end, through_end = h_at[order[-1]].unbind(1), through_at[order[-1]].unbind(1)
    chunks = range(len(h_end))
    begins = [first] * len(h_end)
    for c in reversed(chunks) if reverse else chunks:
        begins[c] = first
        first = torch.addcmul(h_end[c], through_end[c], first)
    h.addcmul_(through, torch.stack(begins, 1).unsqueeze(2))
    return first


def _earlier(h: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """The values before each step, (B, T, H)."""
    first = first.unsqueeze(1)
    return torch.cat([h[:, 1:], first] if reverse else [first, h[:, :-1]], 1)


def _before(
    after: Tensor, first: Tensor, reverse: bool, anew: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, ...]:
    """The state parts that each step reads, after resets, (B, T, H) each."""
    before = _earlier(after, first, reverse)
    return _parted(before if anew is None else torch.where(*anew, before))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One part unchanged, or two as a complex tensor."""
    return parts[0] if len(parts) == 1 else torch.complex(*parts)


def _parted(h: Tensor) -> tuple[Tensor, ...]:
    """The inverse of ``_joined``."""
    return (h.real, h.imag) if h.is_complex() else (h,)


def _last(request: Request, after: Tensor, initial: Tensor) -> Tensor:
    """The value after each row's last valid step, not a view."""
    if request.lengths is None:
        return after[:, 0 if request.reverse else -1].clone()
    if request.reverse:
        last = after[:, 0]
    else:
        at = (request.lengths - 1).clamp(min=0)[:, None, None]
        last = after.take_along_dim(at, 1).squeeze(1)
    return torch.where((request.lengths > 0)[:, None], last, initial)


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
