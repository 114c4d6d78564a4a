"""A fast path for repeated calls: the backend chosen for each cell's last call, and its plan.

Checking a call and choosing a backend takes longer than a step of a small layer, and in training
every call is like the one before. ``unroll`` skips both if the key of a call is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.metaclass import class_changes, is_counted
from seqnets.engine.families import family_of_class, has_own_equation
from seqnets.engine.plans import Plan
from seqnets.engine.request import Request

_Kind = tuple[Any, ...]
_last: WeakKeyDictionary[Cell, tuple[_Kind, str, Plan | None]] = WeakKeyDictionary()


def kind_of(cells: Sequence[Cell], x: Tensor, *options: Any) -> _Kind | None:
    """A key of all that the checks of a call and the choice of a backend depend on.

    None if they may depend on more, or may fail: for cells whose class does not tell their
    equation, for those with hooks, buffers or modules inside, and where a parameter's shape is not
    the cell's or its dtype or device is not the input's.

    Args:
        cells: What the call runs.
        x: Inputs, (B, T, I), for which ``is_plain`` holds.
        options: The call's other arguments.
    """
    dtype, device, changes = x.dtype, x.device, class_changes()
    kinds: list[Any] = []
    for cell in cells:
        shapes, own = cell.__dict__.get("parameter_shapes"), cell._parameters
        if not shapes or cell._modules or cell._buffers or cell._forward_pre_hooks:
            return None
        if not is_counted(type(cell)) or family_of_class(type(cell), changes) is None:
            return None
        for name, shape in shapes.items():  # at every call: a tuple of all takes longer
            tensor = own.get(name)
            if tensor is None or tensor.shape != shape:
                return None
            if tensor.dtype is not dtype or tensor.device != device:
                return None
        kinds += len(own), cell.__dict__.get("nonlinearity")  # the latter of plain networks
    return (
        *options,
        x.shape,
        dtype,
        device,
        kinds,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch._C._get_cudnn_allow_tf32(),
        changes,
    )


def last_backend(cell: Cell) -> str | None:
    """The backend of the cell's last call of any kind, if that is remembered."""
    last = _last.get(cell.origin)
    return last[1] if last else None


def found_for(cell: Cell, kind: _Kind | None) -> tuple[str | None, Plan | None]:
    """Backend and plan of the cell's last call, if its key was this one."""
    last = _last.get(cell.origin) if kind else None
    if last is None or last[0] != kind or has_own_equation(cell):
        return None, None
    return last[1:]


def remember(cell: Cell, kind: _Kind | None, request: Request, backend: str) -> None:
    """Remember a call's backend and plan, if the cell's class alone determines its equation."""
    if kind and not has_own_equation(cell):
        plan = request.known_plan if request.cell is cell else None
        _last[cell.origin] = kind, backend, plan
