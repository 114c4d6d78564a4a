"""What goes on inside a cell: its states, gates and candidates at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell, Wrapper
from seqnets.cells.checks import check_is_cell
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
    check_is_cell("watch", cell)
    watcher = _Watcher(cell)
    _, _, valid = watcher.run(x, state, lengths, resets, reverse)
    steps = list(zip(watcher.states_after, watcher.made, strict=True))
    if reverse:
        steps.reverse()

    def over_time(of_steps: Sequence[Tensor]) -> Tensor:
        return torch.where(valid[..., None], torch.stack(list(of_steps), -2), 0)

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


class Recorder(Wrapper):
    """A cell that keeps the state after each of its steps, in the order in which they run."""

    outermost = True

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.states_after: list[State] = []

    def step(self, wx: Tensor, state: State) -> State:
        """The cell's."""
        self.states_after.append(self.cell.step(wx, state))
        return self.states_after[-1]

    def run(
        self,
        x: Tensor,
        state: State | None,
        lengths: Tensor | None,
        resets: Tensor | None,
        reverse: bool,
    ) -> tuple[Tensor, State, Tensor]:
        """What ``unroll`` gives in the plain loop, and which steps are valid, (B, T)."""
        valid = make_request(self.cell, x, state, lengths, resets, reverse).valid
        if valid is None:
            valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        y, final = unroll(self, x, state, lengths, resets, reverse=reverse, backend="reference")
        return y, final, valid


class _Watcher(Recorder):
    """A recorder that keeps the results of the equation's functions too."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.made: list[dict[str, list[Tensor]]] = []

    def step(self, wx: Tensor, state: State) -> State:
        """The cell's."""
        made: dict[str, list[Tensor]] = {role: [] for role in _ROLES}
        after = self.cell.adapted(**{role: _kept(made[role]) for role in _ROLES}).step(wx, state)
        self.states_after.append(after)
        self.made.append(made)
        return after


def _kept(results: list[Tensor]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of functions whose results are appended to a list."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            results.append(function(*arguments))
            return results[-1]

        return call

    return decorate
