"""A fast path for repeated calls: the backend chosen for each cell's last call.

Checking a call and choosing a backend takes longer than a step of a small layer, and in training
every call is like the one before. ``unroll`` skips both if the key of a call is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.metaclass import class_changes, is_counted
from seqnets.engine.families import family, has_own_equation

_Kind = tuple[Any, ...]
_last: WeakKeyDictionary[Cell, tuple[_Kind, str]] = WeakKeyDictionary()
_kind_of_tensor = attrgetter("shape", "dtype", "device")


def kind_of(cells: Sequence[Cell], x: Tensor, *options: Any) -> _Kind | None:
    """A key of all that the checks of a call and the choice of a backend depend on.

    None if they may depend on more: for cells with hooks, buffers or modules inside.

    Args:
        cells: What the call runs.
        x: Inputs, (B, T, I), for which ``is_plain`` holds.
        options: The call's other arguments.
    """
    parameters: list[Any] = []
    for cell in cells:
        names, own = cell.__dict__.get("parameter_shapes"), cell._parameters
        if not names or cell._modules or cell._buffers or cell._forward_pre_hooks:
            return None
        try:
            parameters += len(own), *map(_kind_of_tensor, map(own.get, names))
        except AttributeError:  # one of them is None
            return None
    return (
        *options,
        parameters,
        _kind_of_tensor(x),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch._C._get_cudnn_allow_tf32(),
        class_changes(),
    )


def last_backend(cell: Cell) -> str | None:
    """The backend of the cell's last call of any kind, if that is remembered."""
    last = _last.get(cell.origin)
    return last[1] if last else None


def backend_of(cell: Cell, kind: _Kind | None) -> str | None:
    """The backend of the cell's last call, if its key was this one."""
    last = _last.get(cell.origin) if kind else None
    if last is None or last[0] != kind or has_own_equation(cell):
        return None
    return last[1]


def remember(cell: Cell, kind: _Kind | None, backend: str) -> None:
    """Remember the backend of a call, if the cell's class alone determines its equation."""
    if kind and is_counted(type(cell)) and family(cell) is not None:
        _last[cell.origin] = kind, backend
