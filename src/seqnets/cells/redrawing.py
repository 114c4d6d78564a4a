"""Parameters drawn anew, and the initializers that options have run after each draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from seqnets import initializers
from seqnets.errors import ConfigError

if TYPE_CHECKING:
    from seqnets.cells.base import Cell


def redraw(cell: Cell) -> None:
    """Draw a cell's parameters anew.

    Raises:
        ConfigError: The cell has no ``reset_parameters``.
    """
    reset = getattr(cell, "reset_parameters", None)
    if reset is None:
        raise ConfigError(
            f"{cell._name}: its parameters cannot be drawn anew, expected a method "
            f"reset_parameters."
        )
    reset()


def register_initializer(cell: Cell, initializer: Callable[[Any], None]) -> None:
    """Have an initializer run whenever a cell's parameters have been drawn anew."""
    cell.__dict__["_initial"] = (*cell.__dict__.get("_initial", ()), initializer)


def apply_initializers(cell: Cell) -> None:
    """Apply the initializers that options registered, after the parameters were drawn."""
    for initializer in cell.__dict__.get("_initial", ()):
        initializer(cell)


def then_initialized(reset: Callable[..., Any]) -> Callable[..., Any]:
    """A method ``reset_parameters`` that then runs what ``register_initializer`` registered.

    Both see whole parameters where ``fully_shard`` has split them.
    """
    if hasattr(reset, "then_initializes"):
        return reset

    @wraps(reset)
    def reset_parameters(self: Any, *args: Any, **kwargs: Any) -> Any:
        initial = self.__dict__.pop("_initial", ())  # for the outermost of super's calls
        try:
            with initializers.whole(self):
                result = reset(self, *args, **kwargs)
                for initializer in initial:
                    initializer(self)
        finally:
            if initial:
                self.__dict__["_initial"] = (*initial, *self.__dict__.get("_initial", ()))
        return result

    reset_parameters.__dict__["then_initializes"] = True
    return reset_parameters
