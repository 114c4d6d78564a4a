"""One-unit cells in plain floats, for comparison with the equations of a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from seqnets.cells import GatedCell
from seqnets.checks import name_of
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
    """Create a cell with one input and one unit and the given parameters, in float64.

    Give every gate different numbers; otherwise a test cannot detect that two gates are swapped.

    Args:
        cell_cls: The cell's class, or a partial of it.
        w: Input weights, one for each gate of ``inputs``.
        u: Recurrent weights, one for each gate of ``recurrent``.
        b: Input biases; zeros if omitted.
        d: Recurrent biases; zeros if omitted.
        per_unit: All further parameters by name.

    Raises:
        ConfigError: A parameter is missing or unknown, or has too few or too many numbers.
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
                f"one_unit: {name} of {name_of(cell)} got "
                f"{counted(given.numel(), 'number')}, expected {expected}."
            )
        if expected:
            parameters[name].copy_(given.view_as(parameters[name]))
    return cell


@torch.no_grad()
def step(cell: GatedCell, x: float, *state: float) -> Any:
    """Take one step of a cell with one unit, in plain floats.

    Args:
        cell: A cell that :func:`one_unit` created.
        x: The input.
        state: The state before the step, in the order of ``states``.

    Returns:
        The state after the step, a float if it has one part and otherwise a tuple.
    """
    before = tuple(torch.tensor([[part]], dtype=torch.float64) for part in state)
    _, after = cell(torch.tensor([[x]], dtype=torch.float64), before)
    numbers = tuple(part.item() for part in after)
    return numbers if len(numbers) > 1 else numbers[0]
