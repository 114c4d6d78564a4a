"""What a cell computes by besides tensors: as a key to compare it by, and as copies of its own."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.engine.graph import Untraceable


def equation_of(cell: nn.Module) -> tuple[Any, ...]:
    """What a cell computes by: its class, its mode, its attributes, and the same of what is inside.

    Raises:
        TypeError: An attribute of a module has nothing to compare it by.
        Untraceable: A module has hooks.
    """
    owners = (cell, cell.origin) if isinstance(cell, Cell) else (cell,)
    inside = []
    for name, module in cell._modules.items():
        if name != "parametrizations" and module is not None:
            if any(getattr(module, kind) for kind in _HOOKS):
                raise Untraceable(f"{name} has hooks, which are called at every step")
            inside.append((name, *equation_of(module)))
    kind, attributes = type(cell), _frozen(attributes_of(cell), owners)
    return kind, _code(kind), cell.training, attributes, *inside


def _code(kind: type[nn.Module]) -> tuple[Any, ...]:
    """What the methods of an equation are compiled to: notebooks put new code into old ones."""
    methods = (getattr(kind, name, None) for name in ("project", "step", "update"))
    return tuple([getattr(method, "__code__", None) for method in methods])


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def _frozen(value: Any, owners: tuple[nn.Module, ...]) -> Any:
    """A value as something that can be compared with its like.

    Args:
        value: An attribute of a cell, or what is inside one.
        owners: The cell, and the one it was bound from: their own methods are known by their class.

    Raises:
        TypeError: It cannot.
    """
    if type(value) is dict:
        kinds = tuple(map(type, value.values()))
        if _PLAIN.issuperset(kinds):  # as with most cells
            return tuple(value), kinds, tuple(value.values())
    if isinstance(value, _COMPARED):
        return type(value), value
    if isinstance(value, partial):
        inside = value.func, value.args, value.keywords, vars(value)
        return type(value), tuple(_frozen(part, owners) for part in inside)
    if isinstance(value, MethodType):
        if any(value.__self__ is owner for owner in owners):
            return MethodType, value.__func__
        return MethodType, value.__func__, _frozen(value.__self__, owners)
    if isinstance(value, Mapping):
        parts = tuple((name, _frozen(part, owners)) for name, part in value.items())
        return type(value), parts
    if isinstance(value, Sequence):
        return type(value), tuple(_frozen(part, owners) for part in value)
    if isinstance(value, (Tensor, nn.Module)) or not _is_told_by_vars(value):
        raise TypeError(f"{type(value).__name__} is not compared")
    return type(value), _frozen(vars(value), owners)


_PLAIN = {bool, int, float, complex, str, bytes, torch.dtype, torch.device, NoneType}
_COMPARED = (*_PLAIN, type, FunctionType, BuiltinFunctionType)
"""Types of what is compared as it stands."""


class _Plain:
    """A class of no more than attributes."""


def _is_told_by_vars(value: Any) -> bool:
    """Whether an object is all in its ``__dict__``, nothing of it in slots or in memory of C's."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and kind.__basicsize__ <= _Plain.__basicsize__
        and not any(base.__dict__.get("__slots__") for base in kind.__mro__)
    )


def with_own_containers(cell: Cell) -> Cell:
    """A bound cell whose lists and the like are copies, so that nobody finds trial numbers there.

    Those that are the cell's itself; not what is inside of these.
    """
    for name, value in attributes_of(cell).items():
        if isinstance(value, (list, dict, set, deque)):
            cell.__dict__[name] = copy.copy(value)
    return cell


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """What a module has of its own, besides tensors and modules."""
    return {name: value for name, value in module.__dict__.items() if name not in _MODULE}


_MODULE = frozenset(nn.Module().__dict__) | {"_origin", "_around", "_initial", "parameter_shapes"}
