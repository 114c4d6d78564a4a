"""How far NaN and infinity reach in matrix memories: as far as in the plain loop.

They are set aside before chunks of steps are computed by products, and then spoil what they reach:
all that the same column of the memory gives from that step on, until the row begins anew.

This holds for values. Gradients are NaN wherever they are in the plain loop, and may be so at other
steps of the same row: at those of the same chunk that follow where the row begins anew.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from seqnets.engine.matrix_memory.remember import Task


class Spoilt(NamedTuple):
    """What is NaN or infinite after each step.

    Attributes:
        columns: Of the memory, (B, T, N, W) boolean.
        scale: Of its scale, (B, T, N, 1) boolean.
    """

    columns: Tensor
    scale: Tensor


def parted(task: Task) -> tuple[Task, Spoilt]:
    """A task of numbers alone, but for its queries, and what the others spoil."""
    at = task.at
    scale = _no_logarithm(at.log_decay)
    if at.log_write is not None:
        scale = scale | _no_logarithm(at.log_write)
    keys = scale | _no_number(at.k, -1)
    for part in (at.rate, at.erase_q, at.erase_k):
        if part is not None:
            keys = keys | _no_number(part, -1)
    values = ~at.v.isfinite()
    if at.log_write is not None:  # the sum of keys is the last column
        values = torch.cat([values, torch.zeros_like(values[..., :1])], -1)
    columns, resets = values | keys, task.resets
    first, first_scale = _start(task.memory, task.m)
    anew, anew_scale = (None, None) if task.start is None else _start(task.start, task.start_m)
    spoilt = Spoilt(
        _reached(columns, first, anew, resets), _reached(scale, first_scale, anew_scale, resets)
    )
    return _cleaned(task), spoilt


def spoil(x: Tensor, spoilt: Tensor) -> Tensor:
    """NaN for numbers that are spoilt, and for whatever their gradients reach."""
    return x * torch.where(spoilt, math.nan, 1.0).to(x.dtype)


def _no_number(x: Tensor, dim: int) -> Tensor:
    """Whether something along a dimension is NaN or infinite; the dimension stays."""
    return ~x.isfinite().all(dim, keepdim=True)


def _no_logarithm(x: Tensor) -> Tensor:
    """The same of logarithms along the last dimension, where minus infinity is that of zero."""
    return ~(x < math.inf).all(-1, keepdim=True)


def _start(memory: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which columns of a memory are NaN or infinite, (B, 1, N, W), and its scale, (B, 1, N, 1)."""
    columns = _no_number(memory, -2).transpose(1, 2)
    scale = torch.zeros_like(columns[..., :1]) if m is None else _no_logarithm(m).unsqueeze(1)
    return columns | scale, scale


def _reached(bad: Tensor, first: Tensor, anew: Tensor | None, resets: Tensor | None) -> Tensor:
    """What is spoilt after each step.

    Args:
        bad: What steps spoil, (B, T, N, ·).
        first: What is spoilt before the first, (B, 1, N, ·).
        anew: What is spoilt where rows begin anew, likewise; None if nothing is.
        resets: Before which steps they do, (B, T); None if they never do.
    """
    if resets is None:
        return torch.cat([first, bad], 1).cumsum(1)[:, 1:] > 0
    begins = resets[..., None, None]
    if anew is not None:
        bad = bad | (begins & anew)
    count = torch.cat([first, bad], 1).cumsum(1)
    earlier = torch.where(begins, count[:, :-1], 0).cummax(1).values
    return count[:, 1:] > earlier


def _cleaned(task: Task) -> Task:
    """The task with zeros for NaN and infinity, except in queries, which reach no other step."""

    def clean(parts: Any) -> Any:
        there = ((name, getattr(parts, name, None)) for name in _WAYS)
        return parts._replace(**{name: _WAYS[name](x) for name, x in there if x is not None})

    cleaned: Task = clean(task)._replace(at=clean(task.at))
    return cleaned


def _zeroed(x: Tensor) -> Tensor:
    return x.nan_to_num(0.0, 0.0, 0.0)


def _without_effect(x: Tensor) -> Tensor:
    """Logarithms with zero for NaN and infinity, but minus infinity."""
    return torch.where(x < math.inf, x, 0)


_WAYS = {
    **dict.fromkeys(("k", "v", "rate", "erase_q", "erase_k", "memory", "start"), _zeroed),
    **dict.fromkeys(("log_decay", "log_write", "m", "start_m"), _without_effect),
}
"""How each part of a task is cleaned, and of its steps."""
