"""Keras 3: models of SimpleRNN, GRU (``reset_after`` true or false) and LSTM layers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import nn
from torch.nn.utils import parametrize

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, OriginalGRUCell, RNNCell
from seqnets.conversion.equations import (
    DEFAULT_FUNCTIONS,
    Equation,
    equation_of,
    fill,
    gate_rows,
    make_cell,
    summed_bias,
)
from seqnets.conversion.keras_model import MERGES, directions, import_keras, recurrent_layers
from seqnets.conversion.libraries import Array
from seqnets.conversion.networks import Layers, layers_of, merge_of, stack
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN


class _Kind(NamedTuple):
    """The Keras layer of a cell.

    Attributes:
        name: The layer's class name.
        order: The gates in Keras' order, as letters of the cell's equation.
        options: Constructor arguments that select the cell's equation.
    """

    name: str
    order: str
    options: dict[str, Any]


_KINDS: dict[type[GatedCell], _Kind] = {
    RNNCell: _Kind("SimpleRNN", "h", {}),
    GRUCell: _Kind("GRU", "zrn", {"reset_after": True}),
    OriginalGRUCell: _Kind("GRU", "zrn", {"reset_after": False}),
    LSTMCell: _Kind("LSTM", "ifgo", {}),
}
_FUNCTIONS = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "hardsigmoid": "hard_sigmoid",
    "elu": "elu",
    "softplus": "softplus",
    "softsign": "softsign",
    "silu": "silu",
    "gelu": "gelu",
    "identity": "linear",
}


def to_keras(module: nn.Module) -> Any:
    """Convert a network to a ``keras.Sequential`` that returns sequences.

    Raises:
        ConfigError: Keras has no such cell.
        AbsentError: Keras is not installed.
    """
    keras = import_keras()
    layers = layers_of(module, merges=tuple(MERGES.values()))
    merge = next(theirs for theirs, ours in MERGES.items() if ours == merge_of(module))
    equations = [[equation_of(cell, _KINDS, "Keras") for cell in layer] for layer in layers]
    with keras.device("cpu"):
        model = keras.Sequential([keras.Input((None, layers[0][0].input_size))])
        for layer in equations:
            forward, *backward = [
                _make_layer(keras, equation, go_backwards=position == 1)
                for position, equation in enumerate(layer)
            ]
            model.add(
                keras.layers.Bidirectional(forward, merge, backward_layer=backward[0])
                if backward
                else forward
            )
        for theirs, layer in zip(model.layers, equations, strict=True):
            theirs.set_weights([w for equation in layer for w in weights_of(equation.cell)])
    return model


def from_keras(model: Any) -> DeepRNN:
    """Convert the recurrent layers of a Keras model, or one such layer, to a network.

    Raises:
        ConfigError: There are no such layers, they do not follow each other or have no weights
            yet, or seqnets has no such cell.
        AbsentError: Keras is not installed.
    """
    found = recurrent_layers(model)
    layers: Layers = [tuple(map(_make_cell, directions(layer))) for layer in found]
    merges = {layer.merge_mode for layer in found if type(layer).__name__ == "Bidirectional"}
    if len(merges) > 1:
        raise ConfigError(
            f"Keras: the layers have the merge_mode {' and '.join(map(repr, sorted(merges)))}, "
            f"expected the same.\n  Single layers can be converted one by one."
        )
    return stack(layers, *(MERGES[merge] for merge in merges))


def weights_of(cell: GatedCell) -> list[Array]:
    """A cell's weights in Keras' layout: kernel, recurrent kernel and bias.

    Keras has one bias, the sum of both, except for :class:`GRUCell`, which needs both: (2, 3H).
    """
    order = _KINDS[parametrize.type_before_parametrizations(cell)].order
    weights = [gate_rows(cell, "weight_ih", order).T, gate_rows(cell, "weight_hh", order).T]
    if cell.bias_ih is None:
        return weights
    if isinstance(cell, GRUCell):
        return [
            *weights,
            np.stack([gate_rows(cell, f"bias_{side}", order) for side in ("ih", "hh")]),
        ]
    return [*weights, summed_bias(cell, order)]


def cell_of(
    kind: type[GatedCell], weights: list[Array], functions: dict[str, str] | None = None
) -> Cell:
    """Create a cell from Keras' weights.

    Args:
        kind: The cell's class.
        weights: Kernel, recurrent kernel and, if there is one, bias.
        functions: Activation functions by role (gate, candidate, squash): names in
            ``seqnets.cells.options.ACTIVATIONS``; the logistic function and tanh if omitted.

    Raises:
        ShapeError: The shapes of the weights do not fit each other.
    """
    kernel, recurrent, *bias = weights
    b, d = (bias[0] if kind is GRUCell else (bias[0], None)) if bias else (None, None)
    functions = functions or DEFAULT_FUNCTIONS
    cell = make_cell(kind, functions, kernel.shape[0], recurrent.shape[0], bias=bool(bias))
    return fill(
        cell,
        _KINDS[kind].order,
        weight_ih=kernel.T,
        weight_hh=recurrent.T,
        bias_ih=b,
        bias_hh=d,
    )


def _make_layer(keras: Any, equation: Equation, *, go_backwards: bool) -> Any:
    """Create the Keras layer that computes an equation, without its weights."""
    cell, functions = equation.cell, equation.functions
    unknown = [name for name in functions.values() if name not in _FUNCTIONS]
    if unknown or (isinstance(cell, LSTMCell) and functions["candidate"] != functions["squash"]):
        raise ConfigError(
            f"Keras: {equation.kind.__name__} has the activations {functions}, expected one for "
            f"candidate and squash, and only these: {', '.join(_FUNCTIONS)}."
        )
    equation.check_projection("Keras")
    kind = _KINDS[equation.kind]
    options = dict(kind.options)
    if kind.name != "SimpleRNN":
        options["recurrent_activation"] = _FUNCTIONS[functions["gate"]]
    return getattr(keras.layers, kind.name)(
        cell.hidden_size,
        activation=_FUNCTIONS[functions["candidate"]],
        use_bias=cell.bias_ih is not None,
        return_sequences=True,
        go_backwards=go_backwards,
        **options,
    )


def _make_cell(layer: Any) -> Cell:
    """Create the cell of a layer that runs in one direction."""
    name, config = type(layer).__name__, layer.get_config()
    (kind,) = (
        cls
        for cls, kind in _KINDS.items()
        if kind.name == name and all(config[k] == v for k, v in kind.options.items())
    )
    ours = {theirs: name for name, theirs in _FUNCTIONS.items()}
    activations = {"candidate": config["activation"], "gate": config.get("recurrent_activation")}
    for role, function in activations.items():
        if function is not None and function not in ours:
            raise ConfigError(
                f"Keras: {name} has the {role} activation {function!r}, expected one of "
                f"{', '.join(ours)}."
            )
    candidate = ours[config["activation"]]
    functions = {
        "gate": ours[config.get("recurrent_activation", "sigmoid")],
        "candidate": candidate,
        "squash": candidate if kind is LSTMCell else "tanh",
    }
    weights = [layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias]
    convert = import_keras().ops.convert_to_numpy
    return cell_of(kind, [convert(w) for w in weights if w is not None], functions)
