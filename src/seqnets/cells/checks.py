"""What is given as a cell, as what makes one, or as a size: checked once, in the same words."""

from __future__ import annotations

from typing import Any

from torch import nn

import seqnets.cells
from seqnets.errors import ConfigError, DtypeError


def check_is_cell(who: str, given: Any) -> None:
    """Raise ConfigError unless it is a cell."""
    if not isinstance(given, seqnets.cells.Cell):
        raise mistaken(who, "cell", given, "a cell")


def mistaken(who: str, what: str, given: Any, expected: str) -> ConfigError:
    """What is to be raised where something came in place of a cell or a layer."""
    came = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    return ConfigError(f"{who}: {what} is {came}, expected {expected}.\n  {_advice(given)}")


def check_makes_cells(who: str, given: Any) -> None:
    """Raise ConfigError where something can make no cells, or is one already."""
    if isinstance(given, nn.Module) or not callable(given):
        raise ConfigError(
            f"{who}: cell is {given!r}, expected a class of cells, or a partial of it.\n"
            f"  {who} fills in the sizes itself."
        )


def check_size(cell: Any, name: str, value: int) -> int:
    """A size of a cell that is being made; raise unless it is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DtypeError(
            f"{type(cell).__name__}: {name} is {value!r} ({type(value).__name__}), "
            f"expected a positive integer."
        )
    if value < 1:
        raise ConfigError(f"{type(cell).__name__}: {name} is {value}, expected at least 1.")
    return value


def _advice(given: Any) -> str:
    """What to do with what came instead."""
    kind = type(given)
    name = kind.__name__.removesuffix("Cell") + "Cell"
    if isinstance(given, seqnets.cells.Cell):
        return "Recurrent(cell) makes a layer of a cell."
    if isinstance(getattr(given, "cell", None), seqnets.cells.Cell):
        return f"{kind.__name__} has a cell inside: its attribute cell."
    if isinstance(given, nn.Module) and hasattr(seqnets.cells, name):
        further = ""
        if isinstance(given, nn.RNNBase):
            further = f"\n  seqnets.conversion.from_torch makes seqnets.{kind.__name__} of it."
        elif hasattr(given, "bound_cells"):
            further = (
                "\n  Its method bound_cells gives those of this module, one a layer and direction."
            )
        return (
            f"{kind.__module__}.{kind.__name__} is torch.nn's, or one with torch.nn's face; the "
            f"cell is seqnets.cells.{name}.{further}"
        )
    return (
        "A class of cells, or a partial of it, becomes a cell with the sizes filled in, and a cell "
        "becomes a layer by Recurrent(cell)."
    )
