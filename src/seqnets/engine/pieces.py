"""State parts that a step reads and writes in pieces: for a loop, each piece is a part of its own.

A loop's units read the same unit of a state part, and others only by products. So N numbers for
each unit, kept as one part (B, N*H) of the cell's state, are N parts (B, H) of the step's.
``tracing/settling.py`` decides which parts are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor

from seqnets.typing import State

_T = TypeVar("_T")


def pieces_of(sizes: Sequence[int], step_sizes: Sequence[int]) -> tuple[int, ...]:
    """The number of pieces of each part of a cell's state; empty if none is cut.

    Args:
        sizes: The cell's ``state_sizes``.
        step_sizes: Those of its traced step.
    """
    if len(sizes) == len(step_sizes):
        return ()
    found: list[int] = []
    for size in sizes:
        width = step_sizes[sum(found)]
        found.append(size // width if width else 1)
    return tuple(found)


def cut(state: Sequence[Any], pieces: Sequence[int]) -> tuple[Any, ...]:
    """A cell's state, or nothing, as the parts of its step; gradients may be None, and stay it."""
    if not pieces or not state:
        return tuple(state)
    each = zip(state, pieces, strict=True)
    return tuple(chain(*([part] * n if part is None else part.chunk(n, -1) for part, n in each)))


def joined(parts: Sequence[Tensor], pieces: Sequence[int]) -> State:
    """The inverse of ``cut``."""
    if not pieces or not parts:
        return tuple(parts)
    every = iter(parts)
    groups = [[next(every) for _ in range(count)] for count in pieces]
    return tuple(group[0] if len(group) == 1 else torch.cat(group, -1) for group in groups)


def repeated(names: Iterable[_T], pieces: Sequence[int]) -> tuple[_T, ...]:
    """The name of the cell's part for each part of the step."""
    if not pieces:
        return tuple(names)
    return tuple(name for name, count in zip(names, pieces, strict=True) for _ in range(count))
