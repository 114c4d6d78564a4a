"""The equation of a cell, and its weights with the gates in any order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils import parametrize

from seqnets.cells import (
    Activations,
    Cell,
    GatedCell,
    InputDropout,
    NIAFLSTMCell,
    NOAFLSTMCell,
    RecurrentDropout,
    RNNCell,
    VariationalDropout,
    Wrapper,
)
from seqnets.checks import name_of
from seqnets.conversion.libraries import Array
from seqnets.errors import ConfigError, ShapeError, counted

_DROPOUTS = (InputDropout, RecurrentDropout, VariationalDropout)  # identities in evaluation
DEFAULT_FUNCTIONS = {"gate": "sigmoid", "candidate": "tanh", "squash": "tanh"}
"""Activation functions of most cells by role: names in ``seqnets.cells.options.ACTIVATIONS``."""

_OTHER_DEFAULTS: dict[type[GatedCell], dict[str, str]] = {
    NIAFLSTMCell: {"candidate": "identity"},
    NOAFLSTMCell: {"squash": "identity"},
}


class Equation(NamedTuple):
    """What a cell computes in evaluation mode.

    Attributes:
        cell: The cell without its wrappers.
        functions: Its activation functions by role: names in ``ACTIVATIONS``.
    """

    cell: GatedCell
    functions: dict[str, str]

    @property
    def kind(self) -> type[GatedCell]:
        """The cell's class."""
        return parametrize.type_before_parametrizations(self.cell)

    def check_projection(self, owner: str) -> None:
        """Raise ConfigError if the cell projects its output."""
        if proj_size := getattr(self.cell, "proj_size", 0):
            raise ConfigError(f"{owner}: proj_size is {proj_size}, expected 0: no projection.")

    def check_functions(self, owner: str) -> None:
        """Raise ConfigError if the activation functions are not the cell's default ones."""
        if self.functions != _default_functions(self.cell):
            raise ConfigError(
                f"{owner}: {self.kind.__name__} has other activations than its default ones, which "
                f"this format cannot represent."
            )


def equation_of(cell: Cell, kinds: Collection[type[GatedCell]], owner: str) -> Equation:
    """What a cell computes in evaluation mode, where dropout has no effect.

    Args:
        cell: The recurrence.
        kinds: Cell classes whose equations the other library has.
        owner: The other library's name, for messages.

    Raises:
        ConfigError: The other library has no such equation.
    """
    functions: dict[str, str] = {}
    while isinstance(cell, Wrapper):
        if isinstance(cell, Activations):
            functions |= cell.names
        elif not isinstance(cell, _DROPOUTS):
            raise ConfigError(
                f"{owner}: {type(cell).__name__} has no counterpart there, expected a plain cell.\n"
                f"  Dropout may stay, as it acts in training only; other options must go."
            )
        cell = cell.cell
    kind = parametrize.type_before_parametrizations(cell)
    if kind not in kinds:  # a subclass may have another equation
        raise ConfigError(
            f"{owner}: {kind.__name__} has no counterpart there, expected one of "
            f"{', '.join(kind.__name__ for kind in kinds)}."
        )
    assert isinstance(cell, GatedCell)
    return Equation(cell, _default_functions(cell) | functions)


def make_cell(
    kind: type[GatedCell],
    functions: dict[str, str],
    input_size: int,
    hidden_size: int,
    *,
    bias: bool,
) -> Cell:
    """Create a cell of a class with activation functions by role: names in ``ACTIVATIONS``.

    Returns:
        The cell, wrapped in ``Activations`` if it needs them.
    """
    options: dict[str, Any] = {}
    defaults = DEFAULT_FUNCTIONS
    if kind is RNNCell and functions["candidate"] in ("tanh", "relu"):
        options = {"nonlinearity": functions["candidate"]}
        defaults = {**defaults, **functions}
    cell = kind(input_size, hidden_size, bias=bias, **options)
    changed = {role: name for role, name in functions.items() if name != defaults[role]}
    return Activations(cell, **changed) if changed else cell


def gate_rows(cell: GatedCell, name: str, order: Sequence[str]) -> Array:
    """A parameter's rows in float32, with its gates in another order.

    Args:
        cell: The cell.
        name: The parameter's name.
        order: The gates in the order wanted; ``[""]`` for a parameter with one value per unit.

    Returns:
        A block of H rows per gate in ``order``; zeros if the cell lacks the gate or the bias.
    """
    tensor = cell.tensors().get(name)
    if tensor is None:
        return np.zeros(len(order) * cell.hidden_size, np.float32)
    gates = _gates_of(cell, name)
    values = tensor.detach().to("cpu", torch.float32).numpy()
    blocks = dict(zip(gates, np.split(values, len(gates)), strict=True))
    zeros = np.zeros_like(blocks[gates[0]])
    return np.concatenate([blocks.get(gate, zeros) for gate in order])


def summed_bias(cell: GatedCell, order: Sequence[str]) -> Array:
    """The sum of both biases, for equations that use only their sum."""
    return gate_rows(cell, "bias_ih", order) + gate_rows(cell, "bias_hh", order)


@torch.no_grad()
def fill(cell: Cell, order: Sequence[str], **weights: Array | None) -> Cell:
    """Copy weights whose gates are in another order into a cell, and return the cell.

    Args:
        cell: The cell to fill.
        order: The order of the gates in ``weights``; gates that the cell lacks are ignored.
        weights: Arrays by parameter name; None for a bias fills it with zeros.

    Raises:
        ShapeError: An array does not have the shape that the cell needs.
    """
    inner = cell.innermost
    assert isinstance(inner, GatedCell)
    for name, given in weights.items():
        parameter = getattr(inner, name)
        if parameter is None:
            continue
        if given is None:
            parameter.zero_()
            continue
        gates = _gates_of(inner, name)
        expected = (len(order) * inner.hidden_size, *parameter.shape[1:])
        if given.shape != expected:
            raise ShapeError(
                f"convert: {name} of {name_of(inner)} has shape {given.shape}, expected "
                f"{expected}: {counted(inner.hidden_size, 'row')} per gate."
            )
        blocks = dict(zip(order, np.split(np.asarray(given), len(order)), strict=True))
        reordered = np.concatenate([blocks[gate] for gate in gates])
        parameter.copy_(torch.from_numpy(reordered))
    return cell


def _default_functions(cell: GatedCell) -> dict[str, str]:
    """The activation functions, by role, that a cell has without ``Activations``."""
    option = {"candidate": cell.nonlinearity} if isinstance(cell, RNNCell) else {}
    kind = parametrize.type_before_parametrizations(cell)
    return DEFAULT_FUNCTIONS | option | _OTHER_DEFAULTS.get(kind, {})


def _gates_of(cell: GatedCell, name: str) -> tuple[str, ...]:
    """The gates of a parameter's rows; ``("",)`` if it has one value per unit."""
    return {"ih": cell.inputs, "hh": cell.recurrent}.get(name.rpartition("_")[2], ("",))
