"""Keras 3's models: their files, and the recurrent layers in them."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_choice
from seqnets.conversion.libraries import Array, library
from seqnets.errors import ConfigError

MERGES = {"concat": "concat", "sum": "sum", "ave": "mean"}
"""Ways to merge two directions: Keras' names, and those of ``Bidirectional``."""

_RECURRENT = ("SimpleRNN", "GRU", "LSTM", "Bidirectional")
_IDENTITIES = ("Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise")  # in evaluation
_IGNORED = (
    *("InputLayer", "Masking", "Embedding", "Dense", "TimeDistributed", "Activation", *_IDENTITIES),
    *("LayerNormalization", "BatchNormalization", "Conv1D", "MaxPooling1D", "AveragePooling1D"),
    *("GlobalMaxPooling1D", "GlobalAveragePooling1D", "Flatten", "Reshape", "RepeatVector"),
    *("Add", "Concatenate"),
)
_CONTAINERS = ("Sequential", "Functional", "DTypePolicy")
_VALUES = ("keras.initializers", "keras.regularizers", "keras.constraints")


def load(path: Path, cell: Any = None) -> Any:
    """Read a ``.keras`` file, after a check that it names only classes that are safe to create.

    Raises:
        ConfigError: The file cannot be read, or names classes beyond ``_RECURRENT`` and
            ``_IGNORED``.
        AbsentError: Keras is not installed.
    """
    keras = import_keras()
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as a .keras file: {error}.") from error
    config.pop("compile_config", None)  # the loss and optimiser, which are not loaded
    for node in _classes(config):
        if node.get("compile_config"):
            raise ConfigError(
                f"{path}: holds a compiled {node['class_name']} inside the model, expected only "
                f"the outer one to be compiled.\n"
                f"  Save the model with what is inside uncompiled."
            )
        if node["class_name"] == "__keras_tensor__":  # a shape, and the layer it comes from
            continue
        module, name = str(node.get("module")), node["class_name"]
        known = name in (*_IGNORED, *_RECURRENT, *_CONTAINERS) or module in _VALUES
        own = node.get("registered_name") not in (None, name)  # somebody's own class
        if not known or own or module.partition(".")[0] != "keras":
            raise ConfigError(
                f"{path}: holds {module}.{name}, expected only {', '.join(_RECURRENT)} and, "
                f"around them, {', '.join(_IGNORED)}.\n"
                f"  Save a model of these layers only."
            )
    with keras.device("cpu"):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def save(model: Any, path: Path) -> None:
    """Write a ``.keras`` file."""
    model.save(path)


def run(model: Any, x: Array, lengths: Array) -> Array:
    """The outputs (B, T, H) of a model's recurrent layers, as Keras computes them."""
    keras = import_keras()
    with keras.device("cpu"):
        mask = keras.ops.convert_to_tensor(np.arange(x.shape[1]) < lengths[:, None])
        y = keras.ops.convert_to_tensor(x)
        for layer in recurrent_layers(model):
            y = _with_sequences(layer, y.shape)(y, mask=mask)
        return np.asarray(keras.ops.convert_to_numpy(y))


def recurrent_layers(model: Any) -> list[Any]:
    """The recurrent layers of a model, or of the one model inside that has some, in order.

    A layer is returned itself.

    Raises:
        ConfigError: A layer has no weights yet, or the layers do not follow each other.
    """
    layers = getattr(model, "layers", [model])
    recurrent = [layer for layer in layers if type(layer).__name__ in _RECURRENT]
    others = [x for x in layers if type(x).__name__ not in _RECURRENT and _has_recurrence(x)]
    if len(others) == 1 and not recurrent and hasattr(others[0], "layers"):
        return recurrent_layers(others[0])
    for layer in recurrent:
        if not layer.built:
            raise ConfigError(
                f"Keras: {type(layer).__name__} has no weights yet, expected a layer that was "
                f"built.\n  Call it, or its model, on an input first."
            )
    obstacle = _obstacle(model, recurrent)
    if others:
        obstacle = f"{type(others[0]).__name__} has recurrence inside, which cannot be left out"
    if obstacle:
        names = ", ".join(type(layer).__name__ for layer in layers)
        raise ConfigError(
            f"Keras: the layers are {names}, expected some of {', '.join(_RECURRENT)} that follow "
            f"each other, with nothing but dropout between them: {obstacle}.\n"
            f"  Single layers can be converted one by one."
        )
    return recurrent


def directions(layer: Any) -> list[Any]:
    """The layer itself, or the two layers of a bidirectional one."""
    if type(layer).__name__ != "Bidirectional":
        _check_direction(layer, backwards=False)
        return [layer]
    check_choice("Keras", MERGES, merge_mode=layer.merge_mode)
    _check_direction(layer.forward_layer, backwards=False)
    _check_direction(layer.backward_layer, backwards=True)
    return [layer.forward_layer, layer.backward_layer]


def import_keras() -> Any:
    """Import Keras, on its torch backend unless another is set."""
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")  # the one that is always installed
    return library("keras")


def _has_recurrence(layer: Any) -> bool:
    """Whether a layer, or any inside it, is recurrent: also of kinds that seqnets lacks."""
    return any(
        base.__name__ in ("RNN", "Bidirectional")
        for part in getattr(layer, "_flatten_layers", list)()
        for base in type(part).__mro__
    )


def _obstacle(model: Any, layers: list[Any]) -> str:
    """Say what keeps recurrent layers of a model from being a stack; nothing if they are one."""
    if not layers:
        return "none of them is recurrent"
    graph = getattr(model, "_functional", model)  # where a Sequential has it
    depths = getattr(graph, "_nodes_by_depth", {})  # none if layers are called by code
    if not depths:
        by_code = "no graph says in which order they run, as the model calls them by code"
        return by_code if len(layers) > 1 else ""
    below = None
    for layer in layers:
        name = type(layer).__name__
        calls = [call for nodes in depths.values() for call in nodes if call.operation is layer]
        if len(calls) != 1:
            return f"{name} is called {len(calls)} times"
        (call,) = calls
        if below and _producer(call) is not below:
            return f"{name} takes something else than the outputs of the one before"
        sources = _state_sources(call) - {"InputLayer"}
        if sources:
            return (
                f"the initial state of {name} comes from {', '.join(sorted(sources))}, and a "
                f"network has no place for that"
            )
        below = call
    return ""


def _producer(call: Any) -> Any:
    """The call of a layer whose output another call takes, through dropout."""
    below = call.parent_nodes[0]  # a mask or an initial state may follow
    return _producer(below) if type(below.operation).__name__ in _IDENTITIES else below


def _state_sources(call: Any) -> set[str]:
    """The classes of the layers, or of the values, that give a call its initial state."""
    after_x, named = call.arguments.args[1:], call.arguments.kwargs
    state = named.get("initial_state", after_x[0] if after_x else None)
    given = [part for part in import_keras().tree.flatten(state) if part is not None]
    origins = [x._keras_history.operation if hasattr(x, "_keras_history") else x for x in given]
    return {type(origin).__name__ for origin in origins}


def _check_direction(layer: Any, backwards: bool) -> None:
    """Raise ConfigError unless a recurrent layer runs in the given direction."""
    if type(layer).__name__ not in _RECURRENT or layer.go_backwards != backwards:
        raise ConfigError(
            f"Keras: {type(layer).__name__} has go_backwards={layer.go_backwards}, expected "
            f"{backwards}: only the second layer of Bidirectional runs backwards."
        )


def _with_sequences(layer: Any, input_shape: Any) -> Any:
    """A copy of a layer that returns the outputs of all steps, and no state."""
    config = layer.get_config()
    directions = [config[name]["config"] for name in ("layer", "backward_layer") if name in config]
    for part in (config, *directions):
        if "return_sequences" in part:
            part |= {"return_sequences": True, "return_state": False, "stateful": False}
    copy = type(layer).from_config(config)
    copy.build(input_shape)
    copy.set_weights(layer.get_weights())
    return copy


def _classes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of a configuration that names a class."""
    if isinstance(node, dict) and "class_name" in node:
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from _classes(child)
