"""Checks of cells and their declarations, shared so that errors read the same everywhere."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn

import seqnets.cells
from seqnets.checks import is_whole, name_of
from seqnets.errors import BackendError, ConfigError, DtypeError
from seqnets.signatures import signature_of


def check_is_cell(who: str, given: Any) -> None:
    """Raise ConfigError unless ``given`` is a cell."""
    if seqnets.cells.Cell not in type(given).__mro__:  # isinstance is slow for abstract classes
        raise wrong_argument(who, "cell", given, "a cell")


def is_timed(cell: Any) -> bool:
    """Whether a cell takes the last feature of its input for the time."""
    return getattr(cell.innermost, "timed", False) is True


def timed_cells(model: nn.Module) -> list[seqnets.cells.Cell]:
    """The cells in a model that do so."""
    cells = (part for part in model.modules() if isinstance(part, seqnets.cells.Cell))
    return [cell for cell in cells if is_timed(cell)]


def takes_elapsed(cell: Any) -> bool:
    """Whether that is the time elapsed since the step before, which depends on the direction."""
    return is_timed(cell) and not getattr(cell.innermost, "stamped", False)


def check_untimed(who: str, cell: Any, why: str) -> None:
    """Raise ConfigError if a cell takes the last feature of its input for the time."""
    if is_timed(cell):
        raise ConfigError(
            f"{who}: {name_of(cell.innermost)} has timed=True, expected False.\n  {why}"
        )


def check_reads_last_state(who: str, cell: Any, why: str) -> None:
    """Raise ConfigError if a cell takes the time elapsed since a step that is not its last one."""
    if takes_elapsed(cell):
        check_untimed(who, cell, f"{why}, and the time is that since the step before.")


def not_scriptable(module: nn.Module) -> BackendError:
    """The error for ``torch.jit.script`` of a cell or layer."""
    return BackendError(
        f"{name_of(module)}: torch.jit.script cannot compile it, expected another way.\n"
        f"  Use torch.export or torch.jit.trace, or script seqnets.conversion.to_torch(module) "
        f"where torch.nn has the module."
    )


def wrong_argument(
    who: str, what: str, given: Any, expected: str, kinds: tuple[type, ...] = ()
) -> ConfigError:
    """The error for an argument that is not the cell or layer that it should be.

    It says where inside the argument parts of these kinds are; where a cell is expected, cells.
    """
    got = f"the class {given.__name__}" if isinstance(given, type) else name_of(given)
    if what == "cell":
        kinds = (seqnets.cells.Cell,)
    advice = _inside(given, what, kinds) or _advice(given)
    return ConfigError(f"{who}: {what} is {got}, expected {expected}.\n  {advice}")


def check_makes_cells(who: str, given: Any, *sizes: str) -> None:
    """Raise ConfigError unless ``given`` can make cells from ``sizes``, which it takes by name."""
    if isinstance(given, nn.Module) or not callable(given):
        is_layer = isinstance(given, nn.Module) and not isinstance(given, seqnets.cells.Cell)
        advice = _advice(given) if is_layer else f"{who} makes cells of the sizes that it needs."
        raise ConfigError(
            f"{who}: cell is {given!r}, expected a class of cells, or a partial of it.\n  {advice}"
        )
    make: Any = given
    arguments: tuple[Any, ...] = ()
    named = dict.fromkeys(sizes)
    while isinstance(make, partial):
        make, arguments, named = make.func, make.args + arguments, make.keywords | named
    try:
        signature = signature_of(make)
    except ValueError:  # some callables have none
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        called = (
            f"{getattr(make, '__name__', type(make).__name__)}({', '.join(signature.parameters)})"
        )
        raise ConfigError(
            f"{who}: cell is {called}, expected something that can be called with "
            f"{' and '.join(f'{size}=' for size in sizes)}: {error}.\n"
            f"  Give its arguments these names, and set others by functools.partial."
        ) from None


def check_names(cls: type[Any], *declared: str) -> None:
    """Raise ConfigError unless the given declarations of a class are tuples of distinct names.

    Names must be identifiers; ``gates`` and ``states`` need at least one. Properties are skipped.
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
            f"{cls.__name__}: {declared} is empty, expected a tuple of at least one name.\n"
            f'  For example, write {declared} = ("h",) in the class.'
        )
    for place, name in enumerate(names):
        if not _is_name(name, declared):
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r}, expected names of attributes: letters "
                f"and digits, a letter first, and no keyword of Python such as 'in'."
            )
        if name in names[:place]:
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r} twice, expected distinct names."
            )


def check_built(cell: Any) -> None:
    """Raise ConfigError if a new cell was not built by its base, or has no sizes."""
    if "_modules" not in vars(cell):
        raise ConfigError(
            f"{name_of(cell)}: __init__ does not call super().__init__, expected a call.\n"
            f"  Write super().__init__(input_size, hidden_size) before parameters are set."
        )
    for size in ("input_size", "hidden_size"):
        if not hasattr(cell, size):
            raise ConfigError(
                f"{name_of(cell)}: has no {size}, expected a positive integer.\n"
                f"  Set self.{size} in __init__."
            )


def check_free(cls: type[Any], declared: str, taken: Iterable[str]) -> None:
    """Raise ConfigError if a class declares a parameter whose name is already taken."""
    for name in _declared(cls, declared) or ():
        if hasattr(cls, name) or name in taken:
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r}, which every cell has already, expected "
                f"an unused name.\n"
                f"  Each becomes a parameter of the cell, such as self.{name}_own."
            )


def check_among_gates(cls: type[Any], declared: str) -> None:
    """Raise ConfigError if a class declares something of gates that it does not have."""
    gates: Any = getattr(cls, "gates", None)
    for name in _declared(cls, declared) or ():
        if isinstance(gates, tuple) and name.removeprefix("-") not in gates:
            raise ConfigError(
                f"{cls.__name__}: {declared} has {name!r}, expected names from its gates, "
                f"{', '.join(gates)}."
            )


def check_size(cell: Any, name: str, value: int) -> int:
    """The value of a size; raise unless it is a positive integer."""
    if not is_whole(value):
        raise DtypeError(
            f"{name_of(cell)}: {name} is {value!r} ({type(value).__name__}), "
            f"expected a positive integer."
        )
    if value < 1:
        raise ConfigError(f"{name_of(cell)}: {name} is {value}, expected at least 1.")
    return value


def check_divides(cell: Any, name: str, value: int, **whole: int) -> None:
    """Raise unless a size divides another one, and both are positive integers."""
    ((of, size),) = whole.items()
    if check_size(cell, of, size) % check_size(cell, name, value):
        raise ConfigError(
            f"{name_of(cell)}: {name} is {value}, expected a divisor of {of} = {size}."
        )


def _declared(cls: type[Any], declared: str) -> Any:
    """What the class itself declares; None for nothing or a property."""
    names = cls.__dict__.get(declared)
    return None if hasattr(names, "__get__") else names


def _is_name(name: Any, declared: str) -> bool:
    if not isinstance(name, str):
        return False
    plain = name.removeprefix("-") if declared == "keeping" else name
    private = plain.startswith("_") and declared != "per_unit"
    return plain.isidentifier() and not keyword.iskeyword(plain) and not private


def _inside(given: Any, what: str, kinds: tuple[type, ...]) -> str:
    """A sentence that says where a module's outermost parts are of these kinds; empty if none."""
    found: list[str] = []
    for name, part in given.named_modules() if isinstance(given, nn.Module) else ():
        if isinstance(part, kinds) and not name.startswith(tuple(found)):
            found.append(f"{name}.")
    if not found:
        return ""
    first = re.sub(r"\.(\d+)", r"[\1]", found[0][:-1])
    if len(found) == 1:
        return f"{type(given).__name__} has a {what} inside: its attribute {first}."
    return f"{type(given).__name__} has {len(found)} {what}s inside, the first one is {first}."


def _advice(given: Any) -> str:
    """A sentence that says what to use in place of a wrong argument."""
    kind = given if isinstance(given, type) else type(given)
    name = kind.__name__.removesuffix("Cell") + "Cell"
    if isinstance(given, seqnets.cells.Cell):
        return "Recurrent(cell) turns a cell into a layer."
    is_cell = issubclass(kind, seqnets.cells.Cell)
    if issubclass(kind, nn.Module) and not is_cell and hasattr(seqnets.cells, name):
        more = ""
        if isinstance(given, nn.RNNBase):
            more = f"\n  seqnets.conversion.from_torch converts it to seqnets.{kind.__name__}."
        elif kind is not given and hasattr(given, "bound_cells"):
            more = "\n  Its method bound_cells returns its cells, one per layer and direction."
        got = f"{kind.__module__}.{kind.__name__}"
        if got.startswith("torch."):
            got = f"torch.nn.{kind.__name__}"
        elif got.startswith("seqnets."):
            got = f"seqnets.{kind.__name__} (torch.nn's interface)"
        return f"You passed {got}; use seqnets.cells.{name}.{more}"
    return (
        "Call a class of cells, or a partial of it, with the sizes to make a cell; Recurrent(cell) "
        "turns a cell into a layer."
    )
