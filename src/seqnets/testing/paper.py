"""Cells in plain floats, to be held against the equations of a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from seqnets.cells import GatedCell
from seqnets.errors import ConfigError, counted


@torch.no_grad()
def one_unit(
    cell_cls: Callable[..., GatedCell],
    w: Sequence[float],
    u: Sequence[float] = (),
    b: Sequence[float] | None = None,
    d: Sequence[float] | None = None,
    **per_unit: float,
) -> GatedCell:
    """A cell with one input and one unit, whose parameters are the numbers given, in float64.

    Give every gate numbers of its own, or a test does not see two gates that are swapped.

    Args:
        cell_cls: The cell's class, or a partial of it.
        w: Weight of the input, one for each gate of ``inputs``.
        u: Weight of the recurrence, one for each gate of ``recurrent``.
        b: Bias of the input; zeros if omitted.
        d: Bias of the recurrence; zeros if omitted.
        per_unit: Every further parameter by its name.

    Raises:
        ConfigError: A parameter got no number, or a number has no parameter.
    """
    cell = cell_cls(1, 1, dtype=torch.float64)

    def zeros(gates: Sequence[str]) -> list[float]:
        return [0.0] * len(gates)

    numbers: dict[str, Any] = {
        "weight_ih": w,
        "weight_hh": u,
        "bias_ih": zeros(cell.inputs) if b is None else b,
        "bias_hh": zeros(cell.recurrent) if d is None else d,
        **per_unit,
    }
    parameters = dict(cell.named_parameters())
    for name in numbers.keys() | parameters.keys():
        given = torch.as_tensor(numbers.get(name, ()), dtype=torch.float64).flatten()
        expected = parameters[name].numel() if name in parameters else 0
        if given.numel() != expected:
            raise ConfigError(
                f"one_unit: {name} of {type(cell).__name__} got "
                f"{counted(given.numel(), 'number')}, expected {expected}."
            )
        if expected:
            parameters[name].copy_(given.view_as(parameters[name]))
    return cell


@torch.no_grad()
def step(cell: GatedCell, x: float, *state: float) -> Any:
    """One step of a cell with one unit, in plain floats.

    Args:
        cell: What :func:`one_unit` made.
        x: The input.
        state: The state before the step, in the order of ``states``.

    Returns:
        The state after it: a float if it has one part, else a tuple.
    """
    before = tuple(torch.tensor([[part]], dtype=torch.float64) for part in state)
    _, after = cell(torch.tensor([[x]], dtype=torch.float64), before)
    numbers = tuple(part.item() for part in after)
    return numbers if len(numbers) > 1 else numbers[0]
