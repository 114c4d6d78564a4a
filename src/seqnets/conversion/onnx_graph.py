"""Reading ONNX models: the recurrent operators in them, which must follow each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqnets.conversion.libraries import Array, library
from seqnets.errors import ConfigError

_OPERATORS = ("GRU", "LSTM", "RNN")
_INPUTS = ("x", "W", "R", "B", "lengths", "initial_h", "initial_c", "P")
_SHAPE_OPERATORS = ("Transpose", "Squeeze", "Unsqueeze", "Reshape", "Identity", "Dropout", "Cast")
_NUMBERS = ("value_int", "value_ints", "value_float", "value_floats")


class Node(NamedTuple):
    """A recurrent operator of a model.

    Attributes:
        operator: RNN, GRU or LSTM.
        attributes: The node's attributes.
        tensors: W, and R, B and P if present, in ONNX's layout; the first axis is the direction.
    """

    operator: str
    attributes: dict[str, Any]
    tensors: dict[str, Array]

    @property
    def directions(self) -> int:
        """Number of directions, D."""
        return len(self.tensors["W"])

    @property
    def hidden_size(self) -> int:
        """Units of each direction, H."""
        return int(self.tensors["R"].shape[2])


def load(path: Path, cell: Any = None) -> Any:
    """Read an ONNX file.

    Raises:
        ConfigError: The file cannot be read.
        AbsentError: onnx is not installed.
    """
    onnx = library("onnx")
    try:
        return onnx.load(path)
    except Exception as error:  # onnx.load documents none; protobuf has its own
        raise ConfigError(f"{path}: cannot be read as an ONNX model: {error}.") from error


def save(model: Any, path: Path) -> None:
    """Write an ONNX file."""
    library("onnx").save(model, path)


def nodes_of(model: Any) -> list[Node]:
    """The recurrent operators of a model, each of which takes the one before's output.

    Raises:
        ConfigError: There are no such operators, they do not follow each other, or their weights
            are not constants.
    """
    onnx = library("onnx")
    graph = model.graph
    constants = _constants(onnx, graph)
    producers = {name: node for node in graph.node for name in node.output}
    found = [node for node in graph.node if not node.domain and node.op_type in _OPERATORS]
    if any(node.op_type == "Scan" for node in graph.node):
        raise ConfigError(
            f"ONNX: a Scan runs over time, expected operators alone: {', '.join(_OPERATORS)}.\n"
            f"  It holds the operations of a step, from which no cell can be told."
        )
    if not found:
        raise ConfigError(f"ONNX: no operator is one of {', '.join(_OPERATORS)}.")
    for below, node in pairwise(found):
        name = node.input[0]
        while name in producers and producers[name].op_type in _SHAPE_OPERATORS:
            name = producers[name].input[0]
        if name != below.output[0]:
            raise ConfigError(
                f"ONNX: {node.op_type} {node.name!r} does not take the output of {below.op_type} "
                f"{below.name!r}, expected layers that follow each other."
            )
    return [_read_node(onnx, node, constants, model) for node in found]


def _constants(onnx: Any, graph: Any) -> dict[str, Array]:
    """The tensors of a graph that no input changes, by name; casts are ignored."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:  # each after those whose outputs it takes
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            if attribute.name == "value":
                constants[node.output[0]] = onnx.numpy_helper.to_array(attribute.t)
            elif attribute.name in _NUMBERS:
                constants[node.output[0]] = np.array(onnx.helper.get_attribute_value(attribute))
        elif node.op_type in ("Cast", "Identity") and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _read_node(onnx: Any, node: Any, constants: dict[str, Array], model: Any) -> Node:
    """Read a recurrent operator's attributes and weights."""
    inputs = {name: given for name, given in zip(_INPUTS, node.input, strict=False) if given}
    who = f"ONNX: {node.op_type} {node.name!r}"
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes["direction"] = attributes.get("direction", b"forward").decode()
    if names := attributes.get("activations"):
        attributes["activations"] = [name.decode() for name in names]
    batch_first = bool(attributes.pop("layout", 0))  # it changes no weight
    if attributes["direction"] == "reverse":
        raise ConfigError(f"{who} runs backwards only, expected forward or bidirectional.")
    if "clip" in attributes:
        raise ConfigError(f"{who} clips at {attributes['clip']}, which no cell does.")
    computed = [name for name in "WRBP" if name in inputs and inputs[name] not in constants]
    if computed:
        raise ConfigError(f"{who} computes its {computed[0]}, expected a constant.")
    lengths = constants.get(inputs.get("lengths", ""))
    if lengths is not None:
        T = _declared_steps(onnx, model, node.input[0], int(batch_first))
        if set(lengths.tolist()) != {T}:
            raise ConfigError(
                f"{who} has the constant sequence_lens {lengths.tolist()} for "
                f"{T or 'any number of'} steps, expected an input of the model.\n"
                f"  A network takes the lengths with each call."
            )
    for name in ("initial_h", "initial_c"):
        if np.any(constants.get(inputs.get(name, ""), 0)):
            raise ConfigError(f"{who} has a constant {name} that is not zero, expected zeros.")
    return Node(
        node.op_type,
        attributes,
        {name: constants[inputs[name]].astype(np.float32) for name in "WRBP" if name in inputs},
    )


def _declared_steps(onnx: Any, model: Any, x: str, axis: int) -> int | None:
    """The size of a tensor's axis; None if the model leaves it open."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.name == x and len(sizes) == 3:
            return sizes[axis].dim_value or None
    return None
