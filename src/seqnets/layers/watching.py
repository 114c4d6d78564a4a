"""What goes on inside a cell: its states, gates and candidates at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqnets.cells import Cell, Wrapper
from seqnets.cells.checks import check_is_cell
from seqnets.cells.wrapper import kept_in
from seqnets.checks import name_of
from seqnets.engine.request import make_request
from seqnets.engine.unroll import unroll
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.stand_ins import check_calls_a_model, ran_none, running
from seqnets.typing import State

ROLES = ("gate", "candidate", "squash")
"""The functions that equations apply their nonlinearities through."""


class Watched(NamedTuple):
    """The inside of a cell at every step; zero past each row's end.

    Attributes:
        states: Each part of the state after every step, by its name: (B, T, H).
        calls: What the equation's ``gate``, ``candidate`` and ``squash`` returned, by these names:
            one (B, T, H) for each call, in the order of the equation. Roles that it does not use
            are left out, and results by heads are laid flat.
    """

    states: dict[str, Tensor]
    calls: dict[str, list[Tensor]]

    def __repr__(self) -> str:
        return f"Watched({_shapes(self)})"


class WatchedLayer(NamedTuple):
    """The inside of a model's layer at every step of a batch.

    Attributes:
        layer: The layer.
        x: Its inputs, (B, T, I).
        valid: Which steps are a row's, and not past its end, (B, T) boolean.
        states: As of :class:`Watched`.
        calls: As of :class:`Watched`.
    """

    layer: Recurrent
    x: Tensor
    valid: Tensor
    states: dict[str, Tensor]
    calls: dict[str, list[Tensor]]

    def __repr__(self) -> str:
        cell, x = self.layer.cell, tuple(self.x.shape)
        return f"WatchedLayer({name_of(cell)}, x={x}, {_shapes(self)})"


def _shapes(watched: Watched | WatchedLayer) -> str:
    """What was kept, with the shape in the place of each tensor."""
    states = {name: tuple(part.shape) for name, part in watched.states.items()}
    calls = {role: [tuple(call.shape) for call in made] for role, made in watched.calls.items()}
    return f"states={states}, calls={calls}"


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
    return watcher.over_time(valid, reverse)


def watch_layers(model: nn.Module, call: Callable[[], Any]) -> dict[str, WatchedLayer]:
    """Run a model, and keep what its recurrent layers compute at every step.

    The layers run in the plain loop. Of several calls of a layer the first one is kept. A layer
    that takes single steps, as a decoder does, is not seen.

    Args:
        model: The model, or any other module around recurrent layers.
        call: Runs it.

    Returns:
        The inside of each :class:`Recurrent` layer that is called over a sequence, by its name in
        the model, in the order of the calls. Those of modules with torch.nn's interface are
        named as their weights are: "lstm.l0_reverse"; rows of packed sequences are longest first.

    Raises:
        ConfigError: No recurrent layer of the model is called over a sequence.

    Example:
        >>> net, x = DeepRNN(cells.LSTMCell, 8, 16, num_layers=2), torch.randn(4, 100, 8)
        >>> seen = layers.watch_layers(net, lambda: net(x))
        >>> seen["layers.1"].states["c"]  # (4, 100, 16)
    """
    check_calls_a_model("watch_layers", "call", call)
    seen: dict[str, WatchedLayer] = {}
    with running(model, lambda name, layer: partial(_watch, seen, name, layer)):
        call()
    if not seen:
        raise ran_none("watch_layers", "the call", model)
    return seen


def _watch(
    seen: dict[str, WatchedLayer],
    name: str,
    layer: Recurrent,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, State]:
    """A layer's forward pass in the plain loop, watched."""
    watcher = _Watcher(layer.cell)
    y, final, valid = watcher.run(x, state, lengths, resets, layer.reverse)
    if name not in seen:
        seen[name] = WatchedLayer(layer, x, valid, *watcher.over_time(valid, layer.reverse))
    return y, final


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
        after, made = step_with_calls(self.cell, wx, state)
        self.states_after.append(after)
        self.made.append(made)
        return after

    def over_time(self, valid: Tensor, reverse: bool) -> Watched:
        """All that was kept, from the first step to the last; zero at those that are not valid."""
        steps = list(zip(self.states_after, self.made, strict=True))
        if reverse:
            steps.reverse()
        if not steps:
            sizes = zip(self.states, self.state_sizes, strict=True)
            none = self._like.new_zeros
            return Watched({name: none(len(valid), 0, size) for name, size in sizes}, {})

        def stacked(of_steps: Sequence[Tensor]) -> Tensor:
            flat = torch.stack([step.flatten(1) for step in of_steps], 1)
            return torch.where(valid[..., None], flat, 0)

        parts = zip(*(after for after, _ in steps), strict=True)
        states = {name: stacked(part) for name, part in zip(self.states, parts, strict=True)}
        calls = {
            role: [stacked(call) for call in zip(*(made[role] for _, made in steps), strict=True)]
            for role in ROLES
            if steps[0][1][role]
        }
        return Watched(states, calls)


def step_with_calls(cell: Cell, wx: Tensor, state: State) -> tuple[State, dict[str, list[Tensor]]]:
    """The state after one step, and what the equation's functions returned, by their names."""
    made: dict[str, list[Tensor]] = {role: [] for role in ROLES}
    after = cell.adapted(**{role: kept_in(made[role]) for role in ROLES}).step(wx, state)
    return after, made
