"""What a cell's equation depends on besides tensors: classes, code, mode and attributes.

``equation_of`` freezes these into a key, under which ``plans.py`` caches traces.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from seqnets.cells import Cell
from seqnets.cells.metaclass import CellType, class_changes, is_counted, users_classes
from seqnets.engine.frozen import frozen
from seqnets.engine.graph import Untraceable
from seqnets.engine.outside import (
    Outside,
    functions_of,
    holding_members,
    methods_of,
    outside_of,
    outside_of_class,
    read_by,
)


def equation_of(cell: nn.Module, path: str = "") -> tuple[Any, ...]:
    """A key of a cell's equation: class, code, mode and attributes, of modules inside too.

    It refers weakly to functions and classes, since these may refer to the cell. ``path`` is what
    the names of modules inside begin with in messages.

    Raises:
        TypeError: An attribute cannot be compared.
        Untraceable: A module has hooks.
    """
    owners = (cell, cell.origin) if isinstance(cell, Cell) else (cell,)
    inside = []
    for name, module in cell._modules.items():
        if name != "parametrizations" and module is not None:
            if any(getattr(module, kind) for kind in _HOOKS):
                raise Untraceable(f"{path}{name} has hooks, which a loop would not call")
            inside.append((name, *equation_of(module, f"{path}{name}.")))
    kind, attributes = type(cell), frozen(attributes_of(cell), owners, read_by)
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
        outside = _outside_of_cell(kind, class_changes())
        return outside.key() if outside else ()
    others = [base for base in users_classes(kind) if not isinstance(base, CellType)]
    plain = [
        (name, frozen(getattr(member, "__func__", member), (), read_by))
        for base in others
        for name, member in base.__dict__.items()
        if not name.startswith("__") and not functions_of([member])
    ]
    return *plain, *outside_of_class(methods_of(kind)).key()


@lru_cache(maxsize=1024)
def _outside_of_cell(kind: Any, changes: int) -> Outside | None:
    """What a class of cells reads outside, cached until a class changes; None of a library's."""
    methods, held = methods_of(kind), holding_members(kind)
    return outside_of_class(methods, kind, held) if methods or held else None


def leave_out_what_tracing_changed(cell: nn.Module) -> None:
    """Let an equation no longer depend on what was changed outside since it was asked for.

    A step that was traced meanwhile did it, as one that counts its calls does.
    """
    for kind in set(map(parametrize.type_before_parametrizations, cell.modules())):
        if is_counted(kind):
            outside = _outside_of_cell(kind, class_changes())
        else:
            outside = outside_of_class(methods_of(kind))
        if outside:
            outside.leave_out_what_changed()
    for module in cell.modules():
        owners = (module, module.origin) if isinstance(module, Cell) else (module,)
        with suppress(TypeError):  # of what a step has made of its attributes
            frozen(attributes_of(module), owners, _leave_out_what_changed)


def _leave_out_what_changed(held: Any) -> tuple[Any, ...]:
    if outside := outside_of(held):
        outside.leave_out_what_changed()
    return ()


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
