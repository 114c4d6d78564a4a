"""Options over any cell: a cell around a cell, and how a cell is made with some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from seqnets.cells.base import Cell
from seqnets.cells.checks import check_is_cell, check_makes_cells
from seqnets.cells.gated import GatedCell
from seqnets.errors import ConfigError
from seqnets.typing import State


class Wrapper(Cell):
    """A cell around another one: the same recurrence, with something added.

    A subclass overrides :meth:`project` or :meth:`step`. What it needs drawn or computed for all
    steps at once it appends to the projected input; what happens inside the equation it changes
    by :meth:`Cell.adapted`. Wrappers go around wrappers.

    Attributes:
        cell: The cell inside.
        projects_within: Whether the cell's projection is part of the step.
    """

    cell: Cell
    projects_within: ClassVar[bool] = False

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        check_is_cell(self._name, cell)
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
        """Draw the parameters anew."""
        redraw(self.cell)

    def project(self, x: Tensor) -> Tensor:
        """What the steps need of the inputs."""
        return self.cell.project(x)

    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step."""
        return self.cell.step(wx, state)

    def adapted(self, **around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
        """The same, with something around methods of the innermost cell."""
        copy = self._copy(type(self))
        copy.__dict__["_modules"] = {**self._modules, "cell": self.cell.adapted(**around)}
        return copy

    def check_parameters(self) -> None:
        """Raise if somebody has given a parameter a shape, dtype or device it cannot have."""
        self.cell.check_parameters()
        super().check_parameters()

    def extra_repr(self) -> str:
        """The cell inside says the sizes."""
        return ""

    @property
    def _like(self) -> Tensor:
        return self.cell._like

    def _needs(self, method: str, what: str) -> list[Any]:
        """What a method gives at each call in a step; raise unless the equation calls it."""
        called = methods_called(self.cell)
        if method not in called:
            raise ConfigError(
                f"{self._name}: {type(self.innermost).__name__} {what}, and the option would "
                f"change nothing.\n  Its equation has to call self.{method}(...)."
            )
        return called[method]


class CellOption(Protocol):
    """What changes a cell: a wrapper's class, a partial of it, or a function."""

    def __call__(self, cell: Any) -> Cell:
        """The cell with the option."""


def optioned(
    input_size: int,
    hidden_size: int,
    *,
    cell: Callable[..., Cell],
    options: Sequence[Any] | Mapping[str, Any],
    **arguments: Any,
) -> Cell:
    """Make a cell with options; a partial of this is what a cell's class is elsewhere.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        cell: Makes the cell: its class or a partial of it.
        options: Each a ``CellOption``: it takes the cell made so far and gives it with something
            added, in this order: the first one is innermost. Names, if they have some, are for
            whoever configures them.
        arguments: What else the cell takes.

    Example:
        >>> options = [LayerNorm, partial(Zoneout, p=0.1)]
        >>> net = DeepRNN(partial(optioned, cell=LSTMCell, options=options), 8, 64, num_layers=2)
    """
    check_makes_cells("optioned", cell)
    made = cell(input_size=input_size, hidden_size=hidden_size, **arguments)
    for option in options.values() if isinstance(options, Mapping) else options:
        made = option(made)
    return made


def gated(owner: str, cell: Cell) -> GatedCell:
    """The innermost cell; raise if it has no recurrent product by gates."""
    inner = cell.innermost
    if not isinstance(inner, GatedCell) or not inner.recurrent:
        raise ConfigError(
            f"{owner}: {inner._name} has no recurrent product by gates, expected a GatedCell with "
            f"recurrent gates.\n"
            f"  The option changes that product, and there would be nothing to change."
        )
    return inner


def redraw(cell: Cell) -> None:
    """Draw a cell's parameters anew.

    Raises:
        ConfigError: The cell does not say how: it has no ``reset_parameters``.
    """
    reset = getattr(cell, "reset_parameters", None)
    if reset is None:
        raise ConfigError(
            f"{type(cell).__name__} does not say how its parameters are drawn, expected a method "
            f"reset_parameters."
        )
    reset()
    follow_rules(cell)


def follow_rules(cell: Cell) -> None:
    """Let parameters start as options of the cell say, after they were drawn in another way."""
    for rule in cell.__dict__.get("_initial", ()):
        rule(cell)


def keep_rule(cell: Cell, rule: Callable[[Any], None]) -> None:
    """Let a rule follow whenever :func:`redraw` draws a cell's parameters anew."""
    cell.__dict__["_initial"] = (*cell.__dict__.get("_initial", ()), rule)


@torch.no_grad()
def methods_called(cell: Cell) -> dict[str, list[Any]]:
    """What ``gate``, ``candidate``, ``squash`` and ``recur`` give where a step calls them."""
    called: dict[str, list[Any]] = {}

    def noted(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                given = method(*arguments)
                called.setdefault(name, []).append(given)
                return given

            return call

        return around

    names = [n for n in ("gate", "candidate", "squash", "recur") if hasattr(cell.innermost, n)]
    x = cell._like.new_zeros(1, cell.input_size)
    with torch.random.fork_rng(devices=[]):
        adapted = cell.adapted(**{name: noted(name) for name in names})
        adapted.step(cell.project(x), cell.initial_state(1))
    return called


def sequence_mask(x: Tensor, size: int, keep: float, *, steps: bool) -> Tensor:
    """A mask of zeros and 1 / keep, for inputs (..., I): (..., size).

    Args:
        x: The inputs, whose last dimension but one is time if there are three.
        size: Numbers a step.
        keep: Probability of a number that is not 0.
        steps: Whether every step has its own; else all steps of a row share one.
    """
    shape = [*x.shape[:-1], size]
    if not steps and len(shape) > 2:
        shape[-2] = 1
    return draw(x, shape, keep).div_(keep).expand(*x.shape[:-1], size)


def draw(like: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """Ones with a probability and zeros else, in a tensor's type and where it lies.

    Out of place: under ``vmap`` each row has numbers of its own, if it is asked for them.
    """
    return torch.bernoulli(torch.empty(shape, dtype=like.dtype, device=like.device), p)
