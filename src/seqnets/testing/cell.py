"""Check of a cell against the laws of recurrence."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.checks import check_makes_cells
from seqnets.checks import name_of
from seqnets.engine import unroll
from seqnets.testing.laws import LAWS, Example, Law, agree, example, obey, perturb, without
from seqnets.typing import State


def check_cell(
    factory: Callable[..., Cell], *, input_size: int = 3, skip: Collection[str] = ()
) -> None:
    """Check that a cell obeys the laws of recurrence, with the reference backend.

    Rows are independent, chunks give the same as the whole sequence, outputs do not depend on the
    future, padding changes nothing, derivatives are right and work under ``torch.func``, copies are
    equal: see ``seqnets.testing.laws``. The equation itself can only be checked against its paper;
    use :func:`one_unit` and :func:`step`. Everything runs in float64 with random parameters; the
    global random state is preserved.

    Args:
        factory: Creates the cell, given ``input_size``.
        input_size: Features of the input, I.
        skip: Names of laws that need not hold: "gradients" for a cell with surrogate gradients.

    Raises:
        AssertionError: A law is broken; the message gives the law, the cell and the numbers.
        ConfigError: A name in ``skip`` is unknown, or ``factory`` does not create cells.

    Example:
        >>> check_cell(partial(MyCell, hidden_size=4))
    """

    def state_dict(layer: nn.Module, data: Example) -> None:
        """A new cell with the ``state_dict`` of the first gives the same results."""
        other = _Unrolled(factory(input_size=input_size)).double()
        other.load_state_dict(layer.state_dict())
        agree(other(*data), layer(*data), "the new cell")

    check_makes_cells("check_cell", factory, "input_size")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = _Unrolled(factory(input_size=input_size)).double()
        perturb(layer)
        laws: tuple[Law, ...] = (*LAWS, reversal, state_dict)
        data = example(layer, input_size, layer.cell.initial_state(4))
        obey(without(laws, skip), layer, data, name_of(layer.cell))


def reversal(layer: Any, data: Example) -> None:
    """Running backwards equals running forwards over each row's valid steps in reverse order."""
    steps = torch.arange(data.x.shape[1], device=data.x.device)
    ends = data.lengths[:, None]
    backwards = torch.where(steps < ends, ends - 1 - steps, steps)

    def reordered(tensor: Tensor) -> Tensor:
        return torch.stack([row[order] for row, order in zip(tensor, backwards, strict=True)])

    y, final = layer(reordered(data.x), data.state, data.lengths, reordered(data.resets))
    agree(layer(*data, reverse=True), (reordered(y), final), "reverse=True")


class _Unrolled(nn.Module):
    """A cell as a layer, run by the reference backend."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *arguments: Any, reverse: bool = False) -> tuple[Tensor, State]:
        return unroll(self.cell, *arguments, reverse=reverse, backend="reference")

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.cell(x, state)
