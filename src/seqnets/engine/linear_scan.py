"""The scan h_t = a_t h_{t-1} + b_t over all steps, by torch's operations or as two kernels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.modes import is_batched
from seqnets.engine.triton import access


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
        kernels, many = _kernels(h), is_batched(grad)
        if kernels and not (many or torch.is_grad_enabled()):
            return *kernels.backward(a, h, first, grad, ctx.reverse), None
        a, h, first = a.conj(), h.conj(), first.conj()
        nothing = torch.zeros_like(first)
        remains = earlier(a, nothing, not ctx.reverse)
        scan = _step_by_step if many else linear_scan
        total = scan(remains, grad, nothing, reverse=not ctx.reverse)
        begins = -1 if ctx.reverse else 0
        grad_first = a[:, begins] * total[:, begins] if ctx.needs_input_grad[2] else None
        return total * earlier(h, first, ctx.reverse), total, grad_first, None


def _step_by_step(a: Tensor, b: Tensor, first: Tensor, *, reverse: bool) -> Tensor:
    """The same by any operations, for several gradients at once: ``is_grads_batched=True``."""
    h, found = first, []
    for t in reversed(range(a.shape[1])) if reverse else range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        found.append(h)
    return torch.stack(found[::-1] if reverse else found, 1)


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


def earlier(h: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """The values before each step, (B, T, H)."""
    first = first.unsqueeze(1)
    return torch.cat([h[:, 1:], first] if reverse else [first, h[:, :-1]], 1)
