"""The laws of a cell, over one sequence and many."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.checks import check_makes_cells
from seqnets.engine import unroll
from seqnets.testing.laws import LAWS, Example, Law, agree, example, obey, perturb, without
from seqnets.typing import State


def check_cell(
    factory: Callable[..., Cell], *, input_size: int = 3, skip: Collection[str] = ()
) -> None:
    """Raise unless a cell obeys the laws of recurrence, run by the reference backend.

    Rows are independent, chunks give what the whole gives, nothing looks ahead, padding changes
    nothing, derivatives are right and work under ``torch.func``, copies are equal: see
    ``seqnets.testing.laws``. The equation itself only a comparison with its paper can check; use
    :func:`one_unit` and :func:`step`. Everything runs in float64 with random parameters, and
    leaves the global random state as it was.

    Args:
        factory: Makes the cell: its class with all but ``input_size`` filled in.
        input_size: Features of the input, I.
        skip: Names of laws that need not hold.

    Raises:
        AssertionError: A law is broken; the message names it, the cell and the numbers.
        ConfigError: ``skip`` names no law, or ``factory`` makes no cells.

    Example:
        >>> check_cell(partial(MyCell, hidden_size=4))
    """

    def state_dict(layer: nn.Module, data: Example) -> None:
        """A new cell with the old one's ``state_dict`` says what the old one says."""
        other = _Unrolled(factory(input_size=input_size)).double()
        other.load_state_dict(layer.state_dict())
        agree(other(*data), layer(*data), "the new cell")

    check_makes_cells("check_cell", factory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = _Unrolled(factory(input_size=input_size)).double()
        perturb(layer)
        laws: tuple[Law, ...] = (*LAWS, reversal, state_dict)
        data = example(layer, input_size, layer.cell.initial_state(4))
        obey(without(laws, skip), layer, data, type(layer.cell).__name__)


def reversal(layer: Any, data: Example) -> None:
    """Backwards in time is forwards over each row's valid steps in the opposite order."""
    steps = torch.arange(data.x.shape[1], device=data.x.device)
    ends = data.lengths[:, None]
    backwards = torch.where(steps < ends, ends - 1 - steps, steps)

    def turned(tensor: Tensor) -> Tensor:
        return torch.stack([row[order] for row, order in zip(tensor, backwards, strict=True)])

    y, final = layer(turned(data.x), data.state, data.lengths, turned(data.resets))
    agree(layer(*data, reverse=True), (turned(y), final), "reverse=True")


class _Unrolled(nn.Module):
    """A cell as the laws take it."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *arguments: Any, reverse: bool = False) -> tuple[Tensor, State]:
        return unroll(self.cell, *arguments, reverse=reverse, backend="reference")

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.cell(x, state)
