"""A fast path for repeated calls: the backend chosen for each cell's last call.

Checking a call and choosing a backend takes longer than a step of a small layer, and in training
every call is like the one before. ``unroll`` skips both if the key of a call is unchanged.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.metaclass import class_changes, is_counted
from seqnets.engine.families import family, has_own_equation

_Kind = tuple[Any, ...]
_last: WeakKeyDictionary[Cell, tuple[_Kind, str]] = WeakKeyDictionary()


def kind_of(cell: Cell, x: Tensor, *options: Any) -> _Kind | None:
    """A key of all that the checks of a call and the choice of a backend depend on.

    None if they may depend on more, or may fail: for cells with hooks or modules inside, and where
    a parameter's shape is not the cell's or its dtype or device is not the input's.

    Args:
        cell: The recurrence.
        x: Inputs, (B, T, I), for which ``is_plain`` holds.
        options: The call's other arguments.
    """
    shapes: Any = getattr(cell, "parameter_shapes", None)
    if not shapes or cell._modules or cell._buffers or cell._forward_pre_hooks:
        return None
    own, dtype, device = cell._parameters, x.dtype, x.device
    for name, shape in shapes.items():
        tensor = own.get(name)
        if tensor is None or tensor.shape != shape:
            return None
        if tensor.dtype is not dtype or tensor.device != device:
            return None
    return (
        *options,
        x.shape,
        dtype,
        device,
        len(own),
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
