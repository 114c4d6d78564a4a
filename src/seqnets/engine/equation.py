"""What a cell computes by besides tensors: as a key to compare it by, and as copies of its own."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.base import class_changes, is_counted, users_classes
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


def _code(kind: Any) -> tuple[Any, ...]:
    """What a class's methods are compiled to: notebooks put new code into old ones.

    And what else it has, if it is no cell's, or one of its bases is not: nobody counts its changes.

    Raises:
        TypeError: An attribute has nothing to compare it by.
    """
    if is_counted(kind):
        return tuple([method.__code__ for method in _methods_of_cell(kind, class_changes())])
    others = [base for base in users_classes(kind) if not isinstance(base, type(Cell))]
    plain = [
        (name, _frozen(member, ()))
        for base in others
        for name, member in base.__dict__.items()
        if not name.startswith("__") and not _functions([member])
    ]
    return *plain, *[method.__code__ for method in _methods(kind)]


@lru_cache(maxsize=1024)
def _methods_of_cell(kind: type[Any], changes: int) -> list[FunctionType]:
    """Those of a class that is all cells', until one of these is changed."""
    return _methods(kind)


def _methods(kind: type[Any]) -> list[FunctionType]:
    """The functions of a class and its bases that are not of a library, properties' included."""
    return _functions([member for base in users_classes(kind) for member in base.__dict__.values()])


def _functions(members: Sequence[Any]) -> list[FunctionType]:
    """The functions among members of a class, also of properties, static and class methods."""
    members = [getattr(member, "fget", None) or member for member in members]
    members = [getattr(member, "__func__", member) for member in members]
    return [member for member in members if isinstance(member, FunctionType)]


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
            numbers = tuple(value.values())
            return tuple(value), kinds, numbers, _signs(numbers) if 0 in numbers else ()
    if isinstance(value, _COMPARED):
        return type(value), value, _signs([value]) if value == 0 else ()
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


def _signs(values: Sequence[Any]) -> tuple[float, ...]:
    """The signs of floats among values: 0.0 and -0.0 are equal, and not the same."""
    return tuple([math.copysign(1, value) for value in values if type(value) is float])


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


def loose_attributes(cell: Cell) -> dict[str, Tensor | int | float]:
    """Tensors and numbers that are plain attributes, of cells inside too: "cell.p" for theirs."""
    found = {name: value for name, value in cell.__dict__.items() if type(value) in _LOOSE}
    for child, inside in cell._modules.items():
        if isinstance(inside, Cell):
            within = loose_attributes(inside)
            found |= {f"{child}.{name}": value for name, value in within.items()}
    return found


_LOOSE = {Tensor, int, float}  # and neither true nor false, which a step branches on
_MODULE = frozenset(nn.Module().__dict__) | {"_origin", "_around", "_initial", "parameter_shapes"}
