"""Which cells have exactly the equation of one of torch.nn's: subclasses that do not change it."""

from __future__ import annotations

from functools import lru_cache

import torch

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.cells.metaclass import class_changes, is_counted

FAMILIES: tuple[type[GatedCell], ...] = (LSTMCell, GRUCell, RNNCell)
"""The cells that torch.nn has."""

_EQUATIONS = {
    "gates", "inputs", "recurrent", "states", "per_unit", "add_parameters", "project", "product",
    "recur", "split", "update", "step", "initial_state", "gate", "candidate", "squash",
}  # fmt: skip


def family(cell: Cell) -> type[GatedCell] | None:
    """The class whose equations this cell has unchanged, subclasses included."""
    kind = type(cell)
    if torch.compiler.is_compiling():  # torch.compile traces functions, but not cached ones
        return None if cell.as_constant(has_own_equation) else _family(kind)
    if has_own_equation(cell):
        return None
    if cell._is_parametrised or not is_counted(kind):  # the class of the former refers to the cell
        return _family(kind)
    return family_of_class(kind, class_changes())


def has_own_equation(cell: Cell) -> bool:
    """Whether a part of the equation is an attribute of this one cell, not of its class."""
    return not _EQUATIONS.isdisjoint(cell.__dict__)


def _family(kind: type[Cell]) -> type[GatedCell] | None:
    for one in FAMILIES:
        if issubclass(kind, one) and all(
            getattr(kind, part) is whole for part, whole in _AS_WRITTEN[one].items()
        ):
            return one
    return None


_AS_WRITTEN = {one: {part: getattr(one, part) for part in _EQUATIONS} for one in FAMILIES}


@lru_cache(maxsize=1024)
def family_of_class(kind: type[Cell], changes: int) -> type[GatedCell] | None:
    """The family of cells of a class, if they have no equation of their own.

    It is cached until a class changes: only for classes whose changes are counted.
    """
    return _family(kind)
