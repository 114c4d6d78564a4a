"""A fast path for repeated calls: the backend chosen for each cell's last call, and its plan.

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
from seqnets.engine.families import family_of_class, has_own_equation
from seqnets.engine.plans import Plan
from seqnets.engine.request import Request

_Kind = tuple[Any, ...]
_last: WeakKeyDictionary[Cell, tuple[_Kind, str, Plan | None]] = WeakKeyDictionary()
_kind_of_tensor = attrgetter("shape", "dtype", "device")


def kind_of(cells: Sequence[Cell], x: Tensor, *options: Any) -> _Kind | None:
    """A key of all that the checks of a call and the choice of a backend depend on.

    None if they may depend on more: for cells whose class does not tell their equation, and for
    those with hooks, buffers or modules inside.

    Args:
        cells: What the call runs.
        x: Inputs, (B, T, I), for which ``is_plain`` holds.
        options: The call's other arguments.
    """
    parameters: list[Any] = []
    changes = class_changes()
    for cell in cells:
        names, own = cell.__dict__.get("parameter_shapes"), cell._parameters
        if not names or cell._modules or cell._buffers or cell._forward_pre_hooks:
            return None
        if not is_counted(type(cell)) or family_of_class(type(cell), changes) is None:
            return None
        try:
            parameters += len(own), *map(_kind_of_tensor, map(own.get, names))
            parameters.append(cell.__dict__.get("nonlinearity"))  # of plain networks
        except AttributeError:  # one of them is None
            return None
    return (
        *options,
        parameters,
        _kind_of_tensor(x),
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
