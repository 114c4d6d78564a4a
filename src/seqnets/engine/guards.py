"""Guards of ``torch.compile``: what it must compare at each call of a compiled cell.

A trace holds for the attributes that its cell had. The compiler guards what it sees being read,
but not what the engine reads out of its sight (``Cell.as_constant``): ``stays`` reads all of that
where the compiler sees it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from seqnets.cells import Cell
from seqnets.cells.metaclass import class_changes, users_classes
from seqnets.engine.equation import attributes_of


def stays(cell: Cell) -> bool:
    """Whether the attributes are those of the trace; the compiler turns the reads into guards.

    A guard on the identity compiles each of many equal layers anew, up to torch's limit of eight.
    """
    if class_changes() != cell.as_constant(_changes):
        return False
    others = cell.as_constant(_replaceable)
    if not others:
        id(cell)  # guards on the cell's identity
    for path in others:
        read(cell, path)
    plain = cell.as_constant(_plain_attributes)  # each alone: torch 2.11 compiles no != of tuples
    return all(read(cell, path) == cell.as_constant(read, path) for path in plain)


def _changes(cell: Cell) -> int:
    """How often a class of cells was changed, of which instances alone show nothing."""
    return class_changes()


def read(cell: Cell, path: str) -> Any:
    """An attribute of a cell, or of a module inside."""
    value: Any = cell
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _plain_attributes(module: nn.Module) -> tuple[str, ...]:
    """Names of a cell's attributes that the compiler can guard.

    The training flag, numbers, strings and tuples of them, also those that are the class's until
    the cell has its own; those of modules inside with a path: "norm.eps".
    """
    own = attributes_of(module)
    everything = {name: getattr(module, name) for name in _of_classes(module)} | own
    names = ["training", *(name for name, value in everything.items() if _is_plain(value))]
    for child, inside in module._modules.items():
        if child != "parametrizations" and inside is not None:
            names += [f"{child}.{name}" for name in _plain_attributes(inside)]
    return tuple(names)


def _is_plain(value: Any) -> bool:
    """Whether an attribute is a number, a string, or a tuple of them."""
    return isinstance(value, _PLAIN) or (type(value) is tuple and all(map(_is_plain, value)))


_PLAIN = (bool, int, float, str)
_OTHERS = ("torch", "builtins", "abc", "typing")
"""Libraries whose classes have nothing that a step reads."""


def _replaceable(cell: Cell) -> tuple[str, ...]:
    """Names of all other attributes that are the class's until the cell has its own.

    None if only the cell's identity tells it from others: if it is of a user's class, or has
    attributes that are neither plain nor cells.
    """
    if users_classes(type(cell)) or not all(map(_is_plain, attributes_of(cell).values())):
        return ()
    names = [name for name in _of_classes(cell) if not _is_plain(getattr(cell, name))]
    for child, module in cell._modules.items():
        within = _replaceable(module) if isinstance(module, Cell) else ()
        if not within:
            return ()
        names += [f"{child}.{name}" for name in within]
    return tuple(names)


def _of_classes(module: nn.Module) -> list[str]:
    """Names of what a step may read from a module's class, properties aside."""
    kind = type(module)
    bases = [base for base in kind.__mro__ if base.__module__.split(".")[0] not in _OTHERS]
    names = dict.fromkeys(name for base in bases for name in base.__dict__)
    return [name for name in names if _is_read(name, getattr(kind, name))]


def _is_read(name: str, value: Any) -> bool:
    """Whether a step may read a class's attribute from the module, rather than compute it."""
    return not name.startswith(("__", "_abc_")) and not isinstance(value, property)
