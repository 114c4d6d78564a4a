"""What is given as a cell, as what makes one, or as a size: checked once, in the same words."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from typing import Any

from torch import nn

import seqnets.cells
from seqnets.checks import is_whole
from seqnets.errors import ConfigError, DtypeError


def check_is_cell(who: str, given: Any) -> None:
    """Raise ConfigError unless it is a cell."""
    if seqnets.cells.Cell not in type(given).__mro__:  # abstract classes answer isinstance slowly
        raise wrong_argument(who, "cell", given, "a cell")


def wrong_argument(who: str, what: str, given: Any, expected: str) -> ConfigError:
    """What is to be raised where something came in place of a cell or a layer."""
    came = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    advice = (_cells_inside(given) if what == "cell" else "") or _advice(given)
    return ConfigError(f"{who}: {what} is {came}, expected {expected}.\n  {advice}")


def check_makes_cells(who: str, given: Any) -> None:
    """Raise ConfigError where something can make no cells, or is one already."""
    if isinstance(given, nn.Module) or not callable(given):
        face = isinstance(given, nn.Module) and not isinstance(given, seqnets.cells.Cell)
        advice = _advice(given) if face else f"{who} makes cells of it, of the sizes needed."
        raise ConfigError(
            f"{who}: cell is {given!r}, expected a class of cells, or a partial of it.\n  {advice}"
        )


def check_names(cls: type[Any], *declared: str) -> None:
    """Raise ConfigError unless what a class of cells declares are tuples of names.

    Names are such as Python takes for attributes, all different; of gates and states there is one
    at least. A property computes the names of each cell, and is not looked at.
    """
    for what in declared:
        names = _declared(cls, what)
        if names is not None:
            _check_names(cls, what, names)


def _check_names(cls: type[Any], declared: str, names: Any) -> None:
    if not isinstance(names, tuple):
        example = f"({names!r},)" if isinstance(names, str) else '("a", "b")'
        raise ConfigError(
            f"{cls.__name__}: {declared} is {names!r}, expected a tuple of names.\n"
            f"  Write {declared} = {example} in the class; the comma makes it a tuple."
        )
    if not names and declared in ("gates", "states"):
        raise ConfigError(
            f"{cls.__name__}: {declared} is empty, expected a tuple of one name at least.\n"
            f'  Write {declared} = ("h",) in the class, say.'
        )
    for place, name in enumerate(names):
        if not _is_name(name, declared):
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r}, expected names of attributes: letters "
                f"and digits, a letter first, and no word of Python's own such as 'in'."
            )
        if name in names[:place]:
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r} twice, expected names that differ."
            )


def check_free(cls: type[Any], declared: str, taken: Iterable[str]) -> None:
    """Raise ConfigError if a class of cells gives a parameter the name of something else it has."""
    for name in _declared(cls, declared) or ():
        if hasattr(cls, name) or name in taken:
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r}, which every cell has already, expected "
                f"a name of its own.\n"
                f"  Each becomes a parameter of the cell: self.{name}_own, say."
            )


def check_among_gates(cls: type[Any], declared: str) -> None:
    """Raise ConfigError if a class of cells names gates that it does not have."""
    gates: Any = getattr(cls, "gates", None)
    for name in _declared(cls, declared) or ():
        if isinstance(gates, tuple) and name.removeprefix("-") not in gates:
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r}, expected some of its gates, "
                f"{', '.join(gates)}."
            )


def check_size(cell: Any, name: str, value: int) -> int:
    """A size of a cell that is being made; raise unless it is a positive integer."""
    if not is_whole(value):
        raise DtypeError(
            f"{type(cell).__name__}: {name} is {value!r} ({type(value).__name__}), "
            f"expected a positive integer."
        )
    if value < 1:
        raise ConfigError(f"{type(cell).__name__}: {name} is {value}, expected at least 1.")
    return value


def _declared(cls: type[Any], declared: str) -> Any:
    """What a class itself declares; None if nothing, or a property."""
    names = cls.__dict__.get(declared)
    return None if hasattr(names, "__get__") else names


def _is_name(name: Any, declared: str) -> bool:
    if not isinstance(name, str):
        return False
    plain = name.removeprefix("-") if declared == "keeping" else name
    private = plain.startswith("_") and declared != "per_unit"
    return plain.isidentifier() and not keyword.iskeyword(plain) and not private


def _cells_inside(given: Any) -> str:
    """Where in a layer the outermost cells are; nothing if none is."""
    found: list[str] = []
    for name, part in given.named_modules() if isinstance(given, nn.Module) else ():
        if isinstance(part, seqnets.cells.Cell) and not name.startswith(tuple(found)):
            found.append(f"{name}.")
    if not found:
        return ""
    first = re.sub(r"\.(\d+)", r"[\1]", found[0][:-1])
    if len(found) == 1:
        return f"{type(given).__name__} has a cell inside: its attribute {first}."
    return f"{type(given).__name__} has {len(found)} cells inside: its {first} is the first."


def _advice(given: Any) -> str:
    """What to do with what came instead."""
    kind = given if isinstance(given, type) else type(given)
    name = kind.__name__.removesuffix("Cell") + "Cell"
    if isinstance(given, seqnets.cells.Cell):
        return "Recurrent(cell) makes a layer of a cell."
    is_cell = issubclass(kind, seqnets.cells.Cell)
    if issubclass(kind, nn.Module) and not is_cell and hasattr(seqnets.cells, name):
        further = ""
        if isinstance(given, nn.RNNBase):
            further = f"\n  seqnets.conversion.from_torch makes seqnets.{kind.__name__} of it."
        elif kind is not given and hasattr(given, "bound_cells"):
            further = (
                "\n  Its method bound_cells gives those of this module, one a layer and direction."
            )
        came = f"{kind.__module__}.{kind.__name__}"
        if came.startswith("torch."):
            came = f"torch.nn.{kind.__name__}"
        elif came.startswith("seqnets."):
            came = f"seqnets.{kind.__name__} (torch.nn's face)"
        return f"You gave {came}; use seqnets.cells.{name}.{further}"
    return (
        "A class of cells, or a partial of it, becomes a cell with the sizes filled in, and a cell "
        "becomes a layer by Recurrent(cell)."
    )
