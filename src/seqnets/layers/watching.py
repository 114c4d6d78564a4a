"""What goes on inside a cell: its states, gates and candidates at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell, Wrapper
from seqnets.engine.request import make_request
from seqnets.engine.unroll import unroll
from seqnets.typing import State

_ROLES = ("gate", "candidate", "squash")


class Watched(NamedTuple):
    """The inside of a cell at every step; zero past each row's end.

    Attributes:
        states: Each part of the state after every step, by its name: (B, T, H).
        calls: What the equation's ``gate``, ``candidate`` and ``squash`` returned, by these names:
            one (B, T, H) for each call, in the order of the equation. Roles that it does not use
            are left out.
    """

    states: dict[str, Tensor]
    calls: dict[str, list[Tensor]]


def watch(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Watched:
    """Run a cell in the plain loop, and keep what it computes at every step.

    The arguments are those of ``unroll``; of a layer, its cell: ``watch(layer.cell, x)``. Options
    that are active in training act here too. The tensors can be differentiated.

    Example:
        >>> states, calls = layers.watch(cells.LSTMCell(8, 16), torch.randn(4, 100, 8))
        >>> memory, (i, f, o) = states["c"], calls["gate"]  # each (4, 100, 16)
    """
    valid = make_request(cell, x, state, lengths, resets, reverse).valid
    watcher = _Watcher(cell)
    unroll(watcher, x, state, lengths, resets, reverse=reverse, backend="reference")
    steps = watcher.steps[::-1] if reverse else watcher.steps

    def over_time(of_steps: Sequence[Tensor]) -> Tensor:
        values = torch.stack(list(of_steps), -2)
        return values if valid is None else torch.where(valid[..., None], values, 0)

    if not steps:
        sizes = zip(cell.states, cell.state_sizes, strict=True)
        return Watched({name: x.new_zeros(len(x), 0, size) for name, size in sizes}, {})
    parts = zip(*(after for after, _ in steps), strict=True)
    states = {name: over_time(part) for name, part in zip(cell.states, parts, strict=True)}
    calls = {
        role: [over_time(call) for call in zip(*(made[role] for _, made in steps), strict=True)]
        for role in _ROLES
        if steps[0][1][role]
    }
    return Watched(states, calls)


class _Watcher(Wrapper):
    """A cell that keeps the state after each of its steps, and the results of its functions."""

    outermost = True

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.steps: list[tuple[State, dict[str, list[Tensor]]]] = []

    def step(self, wx: Tensor, state: State) -> State:
        """The cell's."""
        made: dict[str, list[Tensor]] = {role: [] for role in _ROLES}
        after = self.cell.adapted(**{role: _kept(made[role]) for role in _ROLES}).step(wx, state)
        self.steps.append((after, made))
        return after


def _kept(results: list[Tensor]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of functions whose results are appended to a list."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            results.append(function(*arguments))
            return results[-1]

        return call

    return decorate
