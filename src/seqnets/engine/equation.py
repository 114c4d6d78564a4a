"""What a cell's equation depends on besides tensors: classes, code, mode and attributes.

``equation_of`` freezes these into a key, under which ``plans.py`` caches traces.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from seqnets.cells import Cell
from seqnets.cells.metaclass import CellType, class_changes, is_counted, users_classes
from seqnets.engine.frozen import frozen
from seqnets.engine.graph import Untraceable
from seqnets.engine.outside import Outside


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
    kind, attributes = type(cell), frozen(attributes_of(cell), owners)
    written = kind  # or what torch derived a class from, for this module alone, which it refers to
    if "parametrizations" in cell._modules:
        written = parametrize.type_before_parametrizations(cell)
    return weakref.ref(kind), _code(written), cell.training, attributes, *inside


def _code(kind: Any) -> tuple[Any, ...]:
    """The code of a class's methods, which notebooks may replace, and what it reads outside them.

    And its other members, if the class or a base is not a cell's: their changes are not counted.

    Raises:
        TypeError: A member cannot be compared.
    """
    if is_counted(kind):
        methods = _methods_of_cell(kind, class_changes())
        return _outside(methods).key() if methods else ()
    others = [base for base in users_classes(kind) if not isinstance(base, CellType)]
    plain = [
        (name, frozen(member, ()))
        for base in others
        for name, member in base.__dict__.items()
        if not name.startswith("__") and not _functions([member])
    ]
    return *plain, *_outside(_methods(kind)).key()


@lru_cache(maxsize=1024)
def _methods_of_cell(kind: type[Any], changes: int) -> tuple[FunctionType, ...]:
    """``_methods`` of a class of cells, cached until a class changes."""
    return _methods(kind)


def _methods(kind: type[Any]) -> tuple[FunctionType, ...]:
    """The functions of a class and its bases outside libraries, properties included."""
    return _functions([member for base in users_classes(kind) for member in base.__dict__.values()])


def _functions(members: Sequence[Any]) -> tuple[FunctionType, ...]:
    """The functions among members of a class, those of properties and class methods included."""
    members = [getattr(member, "fget", None) or member for member in members]
    members = [getattr(member, "__func__", member) for member in members]
    return tuple([member for member in members if isinstance(member, FunctionType)])


_outside = lru_cache(maxsize=1024)(Outside)
"""What methods read outside them, as it was found at the last call."""


def leave_out_what_tracing_changed(cell: nn.Module) -> None:
    """Let an equation no longer depend on what was changed outside since it was asked for.

    A step that was traced meanwhile did it, as one that counts its calls does.
    """
    for kind in set(map(parametrize.type_before_parametrizations, cell.modules())):
        if methods := _methods(kind):
            _outside(methods).leave_out_what_changed()


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


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
