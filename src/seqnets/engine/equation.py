"""What a cell's equation depends on besides tensors: classes, code, mode and attributes.

``equation_of`` freezes these into a key, under which ``plans.py`` caches traces.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from seqnets.cells import Cell
from seqnets.cells.metaclass import CellType, class_changes, is_counted, users_classes
from seqnets.engine.graph import Untraceable


def equation_of(cell: nn.Module) -> tuple[Any, ...]:
    """A key of a cell's equation: class, code, mode and attributes, of modules inside too.

    It refers weakly to functions and classes, since these may refer to the cell.

    Raises:
        TypeError: An attribute cannot be compared.
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
    written = kind  # or what torch derived a class from, for this module alone, which it refers to
    if "parametrizations" in cell._modules:
        written = parametrize.type_before_parametrizations(cell)
    return weakref.ref(kind), _code(written), cell.training, attributes, *inside


def _code(kind: Any) -> tuple[Any, ...]:
    """The code objects of a class's methods, which notebooks may replace in place.

    And its other members, if the class or a base is not a cell's: their changes are not counted.

    Raises:
        TypeError: A member cannot be compared.
    """
    if is_counted(kind):
        return tuple([method.__code__ for method in _methods_of_cell(kind, class_changes())])
    others = [base for base in users_classes(kind) if not isinstance(base, CellType)]
    plain = [
        (name, _frozen(member, ()))
        for base in others
        for name, member in base.__dict__.items()
        if not name.startswith("__") and not _functions([member])
    ]
    return *plain, *[method.__code__ for method in _methods(kind)]


@lru_cache(maxsize=1024)
def _methods_of_cell(kind: type[Any], changes: int) -> list[FunctionType]:
    """``_methods`` of a class of cells, cached until a class changes."""
    return _methods(kind)


def _methods(kind: type[Any]) -> list[FunctionType]:
    """The functions of a class and its bases outside libraries, properties included."""
    return _functions([member for base in users_classes(kind) for member in base.__dict__.values()])


def _functions(members: Sequence[Any]) -> list[FunctionType]:
    """The functions among members of a class, those of properties and class methods included."""
    members = [getattr(member, "fget", None) or member for member in members]
    members = [getattr(member, "__func__", member) for member in members]
    return [member for member in members if isinstance(member, FunctionType)]


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def _frozen(value: Any, owners: tuple[nn.Module, ...]) -> Any:
    """A value as a comparable snapshot.

    Args:
        value: An attribute of a cell, or a part of one.
        owners: The cell, and the one it was bound from; their bound methods compare by function.

    Raises:
        TypeError: The value cannot be compared.
    """
    if type(value) is dict:
        kinds = tuple(map(type, value.values()))
        if _PLAIN.issuperset(kinds):  # as with most cells
            numbers = tuple(value.values())
            return tuple(value), kinds, numbers, _signs(numbers) if 0 in numbers else ()
    if isinstance(value, FunctionType):
        return FunctionType, weakref.ref(value)
    if isinstance(value, type):
        return type, weakref.ref(value)
    if isinstance(value, _COMPARED):
        return type(value), value, _signs([value]) if value == 0 else ()
    kind = weakref.ref(type(value))
    if isinstance(value, partial):
        inside = value.func, value.args, value.keywords, vars(value)
        return kind, tuple(_frozen(part, owners) for part in inside)
    if isinstance(value, MethodType):
        if any(value.__self__ is owner for owner in owners):
            return MethodType, weakref.ref(value.__func__)
        return MethodType, weakref.ref(value.__func__), _frozen(value.__self__, owners)
    if isinstance(value, Mapping):
        parts = tuple((name, _frozen(part, owners)) for name, part in value.items())
        return kind, parts
    if isinstance(value, Sequence):
        return kind, tuple(_frozen(part, owners) for part in value)
    if isinstance(value, (Tensor, nn.Module)) or not _is_only_a_dict(value):
        raise TypeError(f"{type(value).__name__} is not compared")
    return kind, _frozen(vars(value), owners)


def _signs(values: Sequence[Any]) -> tuple[float, ...]:
    """The signs of floats among values, since 0.0 equals -0.0."""
    return tuple([math.copysign(1, value) for value in values if type(value) is float])


_PLAIN = {bool, int, float, complex, str, bytes, torch.dtype, torch.device, NoneType}
_COMPARED = (*_PLAIN, BuiltinFunctionType)
"""Types whose values are compared directly."""


class _Plain:
    """A class with a ``__dict__`` and nothing else."""


def _is_only_a_dict(value: Any) -> bool:
    """Whether an object's state is its ``__dict__`` alone, without slots or C fields."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and kind.__basicsize__ <= _Plain.__basicsize__
        and not any(base.__dict__.get("__slots__") for base in kind.__mro__)
    )


def with_own_containers(cell: Cell) -> Cell:
    """Copy a bound cell's own containers (shallowly), so that stand-ins do not leak into them."""
    for name, value in attributes_of(cell).items():
        if isinstance(value, (list, dict, set, deque)):
            cell.__dict__[name] = copy.copy(value)
    return cell


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """A module's attributes other than tensors and modules."""
    own = module.__dict__
    return {name: own[name] for name in sorted(own.keys() - _MODULE)}


def loose_attributes(cell: Cell) -> dict[str, Tensor | int | float]:
    """Tensors and numbers that are plain attributes; those of nested cells as "cell.p".

    Not those that the class has a value of too, which would be read in place of a buffer.
    """
    kind = type(cell)
    found = {
        name: value
        for name, value in attributes_of(cell).items()
        if type(value) in _LOOSE and not hasattr(kind, name)
    }
    for child, inside in cell._modules.items():
        if isinstance(inside, Cell):
            within = loose_attributes(inside)
            found |= {f"{child}.{name}": value for name, value in within.items()}
    return found


_LOOSE = {Tensor, int, float}  # not bool, which a step branches on
_MODULE = frozenset(nn.Module().__dict__) | {"_origin", "_around", "_initial", "parameter_shapes"}
