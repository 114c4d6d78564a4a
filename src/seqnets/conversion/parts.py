"""What all formats share: the layers of a network, and a cell's numbers gate by gate."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
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
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers import Bidirectional, DeepRNN, Recurrent
from seqnets.layers.torch_like import TorchLike

Array = np.ndarray[Any, np.dtype[Any]]
Layers = list[tuple[Cell, ...]]
"""The cells of each layer: one, or one forwards and one backwards."""

_NOISE = (InputDropout, RecurrentDropout, VariationalDropout)  # nothing but in training
_FUNCTIONS = {"gate": "sigmoid", "candidate": "tanh", "squash": "tanh"}
_OWN: dict[type[GatedCell], dict[str, str]] = {
    NIAFLSTMCell: {"candidate": "identity"},
    NOAFLSTMCell: {"squash": "identity"},
}


class AbsentError(ConfigError):
    """A library is not installed, and what was asked for needs it."""


class Equation(NamedTuple):
    """A cell without wrappers, and its functions by role: names in ``ACTIVATIONS``."""

    cell: GatedCell
    functions: dict[str, str]

    @property
    def kind(self) -> type[GatedCell]:
        """The cell's class."""
        return parametrize.type_before_parametrizations(self.cell)

    def check_functions(self, owner: str) -> None:
        """Raise ConfigError if options have put other functions into the cell."""
        if self.functions != _usual(self.cell):
            raise ConfigError(
                f"{owner}: {self.kind.__name__} has other activations than its own, and there is "
                f"no place for them."
            )


def library(name: str) -> Any:
    """Import a library that a format needs.

    Raises:
        AbsentError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise AbsentError(
            f"convert: needs {name.partition('.')[0]}, which cannot be imported ({error}).\n"
            f"  pip install 'seqnets[convert]'"
        ) from error


def layers_of(module: nn.Module) -> Layers:
    """Copies of a network's cells in evaluation mode, layer by layer.

    Args:
        module: A cell, a recurrent layer or a stack of them, or a module that holds one such
            network, like a trained model.

    Raises:
        ConfigError: It holds none or several, or joins its layers by more than concatenation.
    """
    return [tuple(copy.deepcopy(cell).eval() for cell in layer) for layer in _layers(module)]


def stack(layers: Layers) -> DeepRNN:
    """A network of these cells.

    Raises:
        ShapeError: A layer does not take what the layer below gives.
    """
    cells = (cell for layer in layers for cell in layer)

    def following(*, input_size: int, hidden_size: int) -> Cell:
        cell = next(cells)
        if cell.input_size != input_size:
            raise ShapeError(
                f"convert: a layer takes {counted(cell.input_size, 'feature')}, expected the "
                f"{input_size} that the layer below gives."
            )
        return cell

    return DeepRNN(
        following,
        layers[0][0].input_size,
        [layer[0].hidden_size for layer in layers],
        bidirectional=[len(layer) == 2 for layer in layers],
    ).eval()


def equation_of(cell: Cell, kinds: Collection[type[GatedCell]], owner: str) -> Equation:
    """What a cell computes in evaluation; dropouts are passed over.

    Args:
        cell: The recurrence.
        kinds: Classes that the other side has an equation for.
        owner: The other side's name, for messages.

    Raises:
        ConfigError: The other side has no such equation.
    """
    functions: dict[str, str] = {}
    while isinstance(cell, Wrapper):
        if isinstance(cell, Activations):
            functions |= cell.names
        elif not isinstance(cell, _NOISE):
            raise ConfigError(
                f"{owner}: {type(cell).__name__} has no counterpart there, expected plain cells.\n"
                f"  What can be carried: dropout, which acts in training alone."
            )
        cell = cell.cell
    kind = parametrize.type_before_parametrizations(cell)
    if kind not in kinds:  # a subclass may have another equation
        raise ConfigError(
            f"{owner}: {kind.__name__} has no counterpart there, expected one of "
            f"{', '.join(kind.__name__ for kind in kinds)}."
        )
    assert isinstance(cell, GatedCell)
    return Equation(cell, _usual(cell) | functions)


def made(kind: type[GatedCell], functions: dict[str, str], *sizes: int, bias: bool) -> Cell:
    """A cell of a class with these functions, by role.

    Returns:
        The cell, inside of ``Activations`` if it needs them.
    """
    options: dict[str, Any] = {}
    usual = _FUNCTIONS
    if kind is RNNCell and functions["candidate"] in ("tanh", "relu"):
        options = {"nonlinearity": functions["candidate"]}
        usual = {**usual, **functions}
    cell = kind(*sizes, bias=bias, **options)
    other = {role: name for role, name in functions.items() if name != usual[role]}
    return Activations(cell, **other) if other else cell


def array(tensor: Tensor) -> Array:
    """A tensor's numbers in float32."""
    return tensor.detach().to("cpu", torch.float32).numpy()


def rows(cell: GatedCell, name: str, order: Sequence[str]) -> Array:
    """A parameter's rows, with the gates in another order; one with a number a unit has one, "".

    Returns:
        A block of rows for each gate in ``order``; zeros where the cell lacks the gate or bias.
    """
    tensor = cell.tensors().get(name)
    if tensor is None:
        return np.zeros(len(order) * cell.hidden_size, np.float32)
    gates = _gates(cell, name)
    blocks = dict(zip(gates, np.split(array(tensor), len(gates)), strict=True))
    absent = np.zeros_like(blocks[gates[0]])
    return np.concatenate([blocks.get(gate, absent) for gate in order])


def one_bias(cell: GatedCell, order: Sequence[str]) -> Array:
    """The sum of both biases, for equations in which they only add up."""
    return rows(cell, "bias_ih", order) + rows(cell, "bias_hh", order)


@torch.no_grad()
def fill(cell: Cell, order: Sequence[str], **weights: Array | None) -> Cell:
    """Put numbers whose gates are in another order into a cell.

    Args:
        cell: Takes them.
        order: The gates, as the rows have them; those that the cell lacks are left out.
        weights: Rows by the parameter's name; None for a bias fills it with zeros.

    Raises:
        ShapeError: A shape is not the cell's.
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
        gates = _gates(inner, name)
        expected = (len(order) * inner.hidden_size, *parameter.shape[1:])
        if given.shape != expected:
            raise ShapeError(
                f"convert: {name} of {type(inner).__name__} came as {given.shape}, expected "
                f"{expected}, {counted(inner.hidden_size, 'row')} a gate."
            )
        blocks = dict(zip(order, np.split(np.asarray(given), len(order)), strict=True))
        reordered = np.concatenate([blocks[gate] for gate in gates])
        parameter.copy_(torch.from_numpy(reordered))
    return cell


def _usual(cell: GatedCell) -> dict[str, str]:
    """A cell's own functions by role."""
    own = {"candidate": cell.nonlinearity} if isinstance(cell, RNNCell) else {}
    return _FUNCTIONS | own | _OWN.get(parametrize.type_before_parametrizations(cell), {})


def _gates(cell: GatedCell, name: str) -> tuple[str, ...]:
    return {"ih": cell.inputs, "hh": cell.recurrent}.get(name.rpartition("_")[2], ("",))


def _layers(module: nn.Module) -> Iterator[tuple[Cell, ...]]:
    if isinstance(module, Cell):
        yield (module,)
    elif isinstance(module, TorchLike):
        cells = module.bound_cells()
        D = 1 + module.bidirectional
        yield from (tuple(cells[k : k + D]) for k in range(0, len(cells), D))
    elif isinstance(module, Bidirectional):
        pair = module.forward_layer, module.backward_layer
        if module.merge != "concat" or not all(isinstance(layer, Recurrent) for layer in pair):
            raise ConfigError(
                f"convert: merge is {module.merge!r} of {type(pair[0]).__name__}, expected "
                f"'concat' of two cells."
            )
        yield tuple(layer.cell for layer in pair)
    elif getattr(module, "reverse", False):
        raise ConfigError(
            "convert: a layer runs backwards alone, expected forwards or both directions."
        )
    elif isinstance(module, Recurrent):
        yield (module.cell,)
    elif isinstance(module, DeepRNN):
        if any(module.skip_connections()):
            raise ConfigError(
                "convert: connections lead around the layers, expected connection='none'.\n"
                "  The layers of `network.layers` can be converted one by one."
            )
        for layer in module.layers:
            yield from _layers(layer)
    else:
        yield from _layers(_inside(module))


def _inside(module: nn.Module) -> nn.Module:
    """The child that holds the recurrent network."""
    found = [
        child
        for child in module.children()
        if any(isinstance(part, (Cell, TorchLike)) for part in child.modules())
    ]
    if len(found) != 1:
        raise ConfigError(
            f"convert: {type(module).__name__} holds {len(found)} recurrent parts, expected one.\n"
            f"  Give the part itself: a cell, a recurrent layer, or a stack of them."
        )
    return found[0]
