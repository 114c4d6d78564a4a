"""Keras 3: models of SimpleRNN, GRU (reset after or before the product) and LSTM layers."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from torch.nn.utils import parametrize

from seqnets.cells import Cell, GatedCell, GRUCell, LSTMCell, OriginalGRUCell, RNNCell
from seqnets.conversion.parts import (
    Array,
    Equation,
    Layers,
    equation_of,
    fill,
    layers_of,
    library,
    made,
    one_bias,
    rows,
    stack,
)
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN


class _Kind(NamedTuple):
    """What Keras calls a cell, its gates in Keras' order, and which of ours it is."""

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
_PASSED_OVER = ("InputLayer", "Masking", "Embedding", "Dense", "Dropout")
_RECURRENT = ("SimpleRNN", "GRU", "LSTM", "Bidirectional")
_OTHERS = ("Sequential", "Functional", "DTypePolicy", "__keras_tensor__")


def to_keras(module: nn.Module) -> Any:
    """A ``keras.Sequential`` with a network's weights, which returns sequences.

    Raises:
        ConfigError: Keras has no such cell.
        AbsentError: Keras is not installed.
    """
    keras = _keras()
    layers = layers_of(module)
    equations = [[equation_of(cell, _KINDS, "Keras") for cell in layer] for layer in layers]
    with keras.device("cpu"):
        model = keras.Sequential([keras.Input((None, layers[0][0].input_size))])
        for layer in equations:
            directions = [
                _layer(keras, equation, go_backwards=place == 1)
                for place, equation in enumerate(layer)
            ]
            model.add(
                directions[0]
                if len(directions) == 1
                else keras.layers.Bidirectional(directions[0], backward_layer=directions[1])
            )
        for made, layer in zip(model.layers, equations, strict=True):
            made.set_weights([w for equation in layer for w in weights_of(equation.cell)])
    return model


def from_keras(model: Any) -> DeepRNN:
    """The recurrent layers of a Keras model, or of one such layer, as a network.

    Raises:
        ConfigError: There are none, they do not follow each other, or seqnets has no such cell.
        AbsentError: Keras is not installed.
    """
    layers: Layers = [tuple(map(_cell, _directions(layer))) for layer in _recurrent(model)]
    return stack(layers)


def weights_of(cell: GatedCell) -> list[Array]:
    """A cell's weights as Keras has them: kernel, recurrent kernel and bias.

    Biases that only add up are one in Keras: all but those of :class:`GRUCell`.
    """
    order = _KINDS[parametrize.type_before_parametrizations(cell)].order
    weights = [rows(cell, "weight_ih", order).T, rows(cell, "weight_hh", order).T]
    if cell.bias_ih is None:
        return weights
    if isinstance(cell, GRUCell):
        return [*weights, np.stack([rows(cell, f"bias_{side}", order) for side in ("ih", "hh")])]
    return [*weights, one_bias(cell, order)]


def cell_of(
    kind: type[GatedCell], weights: list[Array], functions: dict[str, str] | None = None
) -> Cell:
    """A cell from Keras' weights.

    Args:
        kind: The cell's class.
        weights: Kernel, recurrent kernel and, if there is one, bias.
        functions: Names in ``seqnets.cells.options.ACTIVATIONS`` by role; the usual if omitted.
    """
    kernel, recurrent, *bias = weights
    b, d = (bias[0] if kind is GRUCell else (bias[0], None)) if bias else (None, None)
    functions = functions or {"gate": "sigmoid", "candidate": "tanh", "squash": "tanh"}
    cell = made(kind, functions, kernel.shape[0], recurrent.shape[0], bias=bool(bias))
    return fill(
        cell,
        _KINDS[kind].order,
        weight_ih=kernel.T,
        weight_hh=recurrent.T,
        bias_ih=b,
        bias_hh=d,
    )


def load(path: Path, cell: Any = None) -> Any:
    """Read a ``.keras`` file, once it is seen to name nothing but plain layers of Keras.

    Raises:
        ConfigError: It is unreadable, or has other layers.
        AbsentError: Keras is not installed.
    """
    keras = _keras()
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as a .keras file: {error}.") from error
    for node in _classes(config):
        module, name = str(node.get("module")), node["class_name"]
        known = name in (*_PASSED_OVER, *_RECURRENT, *_OTHERS) or module == "keras.initializers"
        if not known or node.get("registered_name") or not module.startswith("keras"):
            raise ConfigError(
                f"{path}: holds {module}.{name}, expected nothing but {', '.join(_RECURRENT)} "
                f"and, around them, {', '.join(_PASSED_OVER)}.\n"
                f"  Save a model of these layers alone."
            )
    with keras.device("cpu"):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def save(model: Any, path: Path) -> None:
    """Write a ``.keras`` file."""
    model.save(path)


def run(model: Any, x: Array, lengths: Array) -> Array:
    """Outputs of a model's recurrent layers over padded sequences: Keras computes them."""
    keras = _keras()
    with keras.device("cpu"):
        mask = keras.ops.convert_to_tensor(np.arange(x.shape[1]) < lengths[:, None])
        y = keras.ops.convert_to_tensor(x)
        for layer in _recurrent(model):
            y = _returning_sequences(layer, x=y)(y, mask=mask)
        return np.asarray(keras.ops.convert_to_numpy(y))


def _keras() -> Any:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")  # it is there
    return library("keras")


def _layer(keras: Any, equation: Equation, *, go_backwards: bool) -> Any:
    cell, functions = equation.cell, equation.functions
    unknown = [name for name in functions.values() if name not in _FUNCTIONS]
    if unknown or (isinstance(cell, LSTMCell) and functions["candidate"] != functions["squash"]):
        raise ConfigError(
            f"Keras: {equation.kind.__name__} has the activations {functions}, expected one for "
            f"candidate and squash, of {', '.join(_FUNCTIONS)}."
        )
    if getattr(cell, "proj_size", 0):
        raise ConfigError(f"Keras: proj_size is {cell.proj_size}, expected 0: no projection.")
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


def _recurrent(model: Any) -> list[Any]:
    """A model's recurrent layers, in their order; or the layer itself."""
    layers = getattr(model, "layers", [model])
    names = [type(layer).__name__ for layer in layers]
    places = [place for place, name in enumerate(names) if name in _RECURRENT]
    between = names[places[0] : places[-1] + 1] if places else []
    if not places or any(name not in (*_RECURRENT, "Dropout") for name in between):
        raise ConfigError(
            f"Keras: the layers are {', '.join(names)}, expected some of {', '.join(_RECURRENT)} "
            f"that follow each other."
        )
    return [layers[place] for place in places]


def _directions(layer: Any) -> list[Any]:
    """The layer, or its two directions."""
    if type(layer).__name__ != "Bidirectional":
        _check_direction(layer, backwards=False)
        return [layer]
    if layer.merge_mode != "concat":
        raise ConfigError(f"Keras: merge_mode is {layer.merge_mode!r}, expected 'concat'.")
    _check_direction(layer.forward_layer, backwards=False)
    _check_direction(layer.backward_layer, backwards=True)
    return [layer.forward_layer, layer.backward_layer]


def _check_direction(layer: Any, backwards: bool) -> None:
    if type(layer).__name__ not in _RECURRENT or layer.go_backwards != backwards:
        raise ConfigError(
            f"Keras: {type(layer).__name__} has go_backwards={layer.go_backwards}, expected "
            f"{backwards}: alone a layer runs forwards."
        )


def _cell(layer: Any) -> Cell:
    """The cell of a layer in one direction."""
    name, config = type(layer).__name__, layer.get_config()
    (kind,) = (
        cls
        for cls, kind in _KINDS.items()
        if kind.name == name and all(config[k] == v for k, v in kind.options.items())
    )
    ours = {theirs: name for name, theirs in _FUNCTIONS.items()}
    asked = {"candidate": config["activation"], "gate": config.get("recurrent_activation")}
    for role, function in asked.items():
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
    numbers = [layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias]
    convert = _keras().ops.convert_to_numpy
    return cell_of(kind, [convert(w) for w in numbers if w is not None], functions)


def _returning_sequences(layer: Any, x: Any) -> Any:
    """The same layer, but with the outputs of all steps."""
    config = layer.get_config()
    for part in (
        config,
        *(config[k]["config"] for k in ("layer", "backward_layer") if k in config),
    ):
        if "return_sequences" in part:
            part |= {"return_sequences": True, "return_state": False, "stateful": False}
    copy = type(layer).from_config(config)
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    return copy


def _classes(node: Any) -> Iterator[dict[str, Any]]:
    """Every node of a configuration that names a class."""
    if isinstance(node, dict) and "class_name" in node:
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from _classes(child)
