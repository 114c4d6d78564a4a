"""Options for any cell: cells that wrap another cell, and how to build a cell with options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from seqnets.cells.base import Cell
from seqnets.cells.checks import check_is_cell, check_makes_cells
from seqnets.cells.constructors import shown_options
from seqnets.cells.gated import GatedCell
from seqnets.cells.redrawing import redraw
from seqnets.errors import ConfigError, counted
from seqnets.typing import State


class Wrapper(Cell):
    """A cell around another one: the same recurrence, modified.

    A subclass overrides :meth:`project` or :meth:`step`. Values for all steps, such as masks, are
    appended to the projected input; parts of the equation are replaced by :meth:`Cell.adapted`.
    Wrappers nest.

    Attributes:
        cell: The cell inside.
        outermost: Whether it belongs around options that change the state or read the output.

    Raises:
        ConfigError: The cell inside is none, or is to be ``outermost`` and this one is not.
    """

    cell: Cell
    outermost: ClassVar[bool] = False

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        check_is_cell(self._name, cell)
        if isinstance(cell, Wrapper) and cell.outermost and not self.outermost:
            inside, outside = self._name, cell._name
            raise ConfigError(
                f"{inside}: got {outside} inside, expected it outside: {outside}({inside}(cell)).\n"
                f"  {outside} outputs what the options inside it make of the state. A wrapper that "
                f"only observes declares outermost = True."
            )
        self.cell = cell
        self.input_size, self.hidden_size = cell.input_size, cell.hidden_size
        self.states, self.clocks = cell.states, cell.clocks
        self.output_only = cell.output_only

    @property
    def innermost(self) -> Cell:
        """The cell inside all wrappers."""
        return self.cell.innermost

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state."""
        return self.cell.state_sizes

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step where none is given."""
        return self.cell.initial_state(batch_size)

    def reset_parameters(self) -> None:
        """Draw the inner cell's parameters anew."""
        redraw(self.cell)

    def project(self, x: Tensor) -> Tensor:
        """The inner cell's projection."""
        return self.cell.project(x)

    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step."""
        return self.cell.step(wx, state)

    def adapted(self, **around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
        """A copy with methods of the innermost cell decorated; see :meth:`Cell.adapted`."""
        copy = self._copy(type(self))
        copy.__dict__["_modules"] = {**self._modules, "cell": self.cell.adapted(**around)}
        return copy

    def check_parameters(self) -> None:
        """Raise if a parameter was replaced by one of another shape, dtype or device."""
        self.cell.check_parameters()
        super().check_parameters()

    def extra_repr(self) -> str:
        """The options that differ from their defaults; the inner cell prints the sizes."""
        return ", ".join(shown_options(type(self), self._shown_values()))

    @property
    def _like(self) -> Tensor:
        return self.cell._like

    def _require_call(self, method: str, what: str) -> list[Any]:
        """The results of a method at each call in a step; raise unless the equation calls it."""
        results = results_of_methods(self.cell)
        if method not in results:
            raise ConfigError(
                f"{self._name}: {self.innermost._name} {what}, so the option would have "
                f"no effect.\n  Its equation must call self.{method}(...)."
            )
        return results[method]


class CellOption(Protocol):
    """Modifies a cell: a wrapper's class, a partial of it, or a function."""

    def __call__(self, cell: Any) -> Cell:
        """The modified cell."""


def optioned(
    input_size: int,
    hidden_size: int,
    *,
    cell: Callable[..., Cell],
    options: Sequence[Any] | Mapping[str, Any],
    **arguments: Any,
) -> Cell:
    """Make a cell with options; a partial of this can stand wherever a cell's class can.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        cell: A cell's class or a partial of it.
        options: A ``CellOption`` each, applied in order: the first one is innermost. The keys of a
            mapping are ignored; they serve configuration files.
        arguments: Further arguments of the cell.

    Raises:
        ConfigError: ``cell`` does not make cells, or the options are no list of callables.

    Example:
        >>> options = [LayerNorm, partial(Zoneout, p=0.1)]
        >>> net = DeepRNN(partial(optioned, cell=LSTMCell, options=options), 8, 64, num_layers=2)
    """
    check_makes_cells("optioned", cell, "input_size", "hidden_size", *arguments)
    listed: Any = options.values() if isinstance(options, Mapping) else options
    if callable(listed) or not isinstance(listed, Iterable) or isinstance(listed, (str, Iterator)):
        wrong = [f"is {listed!r}"]  # an iterator would serve the first cell alone
    else:
        wrong = [f"has {option!r}" for option in listed if not _is_option(option)]
    if wrong:
        raise ConfigError(
            f"optioned: options {wrong[0]}, expected a list of callables that take a cell: classes "
            f"of options, or partials of them.\n"
            f"  For example, [LayerNorm, partial(Zoneout, p=0.1)]."
        )
    made = cell(input_size=input_size, hidden_size=hidden_size, **arguments)
    for option in listed:
        made = option(made)
    return made


def _is_option(given: Any) -> bool:
    return callable(given) and not isinstance(given, Cell)


def gated(owner: str, cell: Cell, advice: str = "The option modifies that product.") -> GatedCell:
    """The innermost cell; raise unless it is gated with recurrent gates."""
    check_is_cell(owner, cell)
    inner = cell.innermost
    if not isinstance(inner, GatedCell) or not inner.recurrent:
        raise ConfigError(
            f"{owner}: {inner._name} has no recurrent product by gates, expected a GatedCell with "
            f"recurrent gates.\n"
            f"  {advice}"
        )
    return inner


def with_square_weights(owner: str, cell: Cell) -> GatedCell:
    """The innermost cell; raise unless each gate has a square recurrent matrix that is learned."""
    inner = gated(owner, cell)
    if parametrize.is_parametrized(inner, "weight_hh"):
        raise ConfigError(
            f"{owner}: {inner._name} computes its weight_hh already, expected one that is learned "
            f"as it is."
        )
    rows, *columns = inner.weight_hh.shape
    if columns != [rows // len(inner.recurrent)]:
        raise ConfigError(
            f"{owner}: weight_hh of {inner._name} has shape {tuple(inner.weight_hh.shape)}, "
            f"expected a square matrix for each of {counted(len(inner.recurrent), 'gate')}."
        )
    if not inner.weight_hh.requires_grad:
        raise ConfigError(
            f"{owner}: weight_hh of {inner._name} is fixed, expected one that is learned.\n"
            f"  reservoir fixes what it has drawn."
        )
    return inner


@torch.no_grad()
def results_of_methods(cell: Cell) -> dict[str, list[Any]]:
    """The results of ``gate``, ``candidate``, ``squash`` and ``recur`` at each call in a step.

    Methods that the equation does not call are left out.
    """
    names = [n for n in ("gate", "candidate", "squash", "recur") if hasattr(cell.innermost, n)]
    results: dict[str, list[Any]] = {name: [] for name in names}
    x = cell._like.new_zeros(1, cell.input_size)
    with torch.random.fork_rng(devices=[]):
        adapted = cell.adapted(**{name: kept_in(of) for name, of in results.items()})
        adapted.step(cell.project(x), cell.initial_state(1))
    return {name: of for name, of in results.items() if of}


def kept_in(results: list[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator, for :meth:`Cell.adapted`, of methods whose results are appended to a list."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            results.append(method(*arguments))
            return results[-1]

        return call

    return decorate
