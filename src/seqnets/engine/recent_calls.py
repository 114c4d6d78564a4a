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
from seqnets.engine import native
from seqnets.engine.families import family_of_class, has_own_equation
from seqnets.engine.modes import PLAIN_TYPES
from seqnets.engine.plans import Plan
from seqnets.engine.request import Request


class Kind:
    """All that the checks of a call and the choice of a backend depend on.

    Args:
        cells: What the call runs.
        x: Inputs, (B, T, I) or (T, B, I), for which ``is_plain`` holds.
        options: The call's other arguments.
    """

    __slots__ = "_cells", "_circumstances", "_device", "_dtype", "_options", "_shape"

    def __init__(self, cells: Sequence[Cell], x: Tensor, options: tuple[Any, ...]) -> None:
        self._shape, self._dtype, self._device = x.shape, x.dtype, x.device
        self._options = options
        self._circumstances = _circumstances()
        self._cells = [
            (type(cell), len(cell._parameters), cell.__dict__.get("nonlinearity"))  # of plain ones
            for cell in cells
        ]

    def fits(self, cells: Sequence[Cell], x: Tensor, *options: Any) -> bool:
        """Whether a call with these arguments, as many cells, is of this kind.

        Never where the checks and the choice may depend on more, or may fail: for cells with an
        equation, hooks, buffers or modules of their own, and where a parameter is not a plain
        tensor, its shape is not the cell's, or its dtype or device is not the input's.
        """
        dtype, device = self._dtype, self._device
        if (
            x.shape != self._shape
            or x.dtype is not dtype
            or x.device != device
            or options != self._options
            or _circumstances() != self._circumstances
        ):
            return False
        for cell, (kind, count, nonlinearity) in zip(cells, self._cells, strict=True):
            own, parameters = cell.__dict__, cell._parameters
            if type(cell) is not kind or len(parameters) != count or has_own_equation(cell):
                return False
            if cell._modules or cell._buffers or cell._forward_pre_hooks:
                return False
            if own.get("nonlinearity") != nonlinearity:
                return False
            for name, shape in own["parameter_shapes"].items():
                tensor = parameters.get(name)
                if tensor is None or type(tensor) not in PLAIN_TYPES or tensor.shape != shape:
                    return False
                if tensor.dtype is not dtype or tensor.device != device:
                    return False
        return True


_last: WeakKeyDictionary[Cell, tuple[Kind, str, Plan | None, Any]] = WeakKeyDictionary()


def _circumstances() -> tuple[Any, ...]:
    """What else a choice depends on."""
    return (
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch._C._get_cudnn_allow_tf32(),
        class_changes(),
    )


def kind_of(cells: Sequence[Cell], x: Tensor, *options: Any) -> Kind | None:
    """The kind of a call; None if it has none, or its cells' classes do not tell their equations.

    The arguments are those of :class:`Kind`.
    """
    changes = class_changes()
    for cell in cells:
        if cell._modules or not cell.__dict__.get("parameter_shapes"):  # first: what follows keeps
            return None  # the class, and that of parametrised cells refers to the cell
        if not is_counted(type(cell)) or family_of_class(type(cell), changes) is None:
            return None
    kind = Kind(cells, x, options)
    return kind if kind.fits(cells, x, *options) else None


def repeated(cell: Cell, x: Tensor, *options: Any) -> tuple[str, Plan | None, Any] | None:
    """Backend, plan and step of the cell's last call, if this one is of the same kind."""
    last = _last.get(cell.__dict__.get("_origin", cell))  # as cell.origin, sooner
    return last[1:] if last is not None and last[0].fits((cell,), x, *options) else None


def remember(cell: Cell, kind: Kind | None, request: Request, backend: str) -> None:
    """Remember the backend of a call, its plan and torch's step, if the call is of a kind."""
    if kind:
        plan = request.known_plan if request.cell is cell else None
        step = native.one_step_kernel(cell, request.x) if backend == native.name else None
        _last[cell.origin] = kind, backend, plan, step
