"""ONNX: the operators RNN, GRU and LSTM, one node per layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from seqnets.cells import (
    Cell,
    CIFGLSTMCell,
    CoupledLSTMCell,
    GatedCell,
    GRUCell,
    LSTMCell,
    NIAFLSTMCell,
    NOAFLSTMCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    RNNCell,
)
from seqnets.conversion.parts import (
    Array,
    Equation,
    equation_of,
    fill,
    gate_rows,
    layers_of,
    library,
    make_cell,
    stack,
)
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN

_OPSET, _IR = 14, 8  # every ONNX Runtime for Python 3.10 and newer reads these


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


class _Kind(NamedTuple):
    """The ONNX operator of a cell.

    Attributes:
        operator: The operator's name.
        order: The gates in ONNX's order, as letters of the cell's equation.
        roles: Roles of the operator's activations, in ONNX's order.
        attributes: Attributes that select the cell's equation.
    """

    operator: str
    order: str
    roles: tuple[str, ...]
    attributes: dict[str, int]


_ALL = ("gate", "candidate", "squash")
# Reading takes the first that fits: cells that differ in their activations alone come last.
_KINDS: dict[type[GatedCell], _Kind] = {
    RNNCell: _Kind("RNN", "h", ("candidate",), {}),
    GRUCell: _Kind("GRU", "zrn", ("gate", "candidate"), {"linear_before_reset": 1}),
    OriginalGRUCell: _Kind("GRU", "zrn", ("gate", "candidate"), {"linear_before_reset": 0}),
    LSTMCell: _Kind("LSTM", "iofg", _ALL, {"input_forget": 0}),
    PeepholeLSTMCell: _Kind("LSTM", "iofg", _ALL, {"input_forget": 0}),
    CoupledLSTMCell: _Kind("LSTM", "iofg", _ALL, {"input_forget": 1}),
    CIFGLSTMCell: _Kind("LSTM", "iofg", _ALL, {"input_forget": 1}),
    NIAFLSTMCell: _Kind("LSTM", "iofg", _ALL, {"input_forget": 0}),
    NOAFLSTMCell: _Kind("LSTM", "iofg", _ALL, {"input_forget": 0}),
}
_INPUTS = ("x", "W", "R", "B", "lengths", "initial_h", "initial_c", "P")
_SHAPE_OPERATORS = ("Transpose", "Squeeze", "Unsqueeze", "Reshape", "Identity", "Dropout", "Cast")
_NUMBERS = ("value_int", "value_ints", "value_float", "value_floats")
_PEEPHOLES = ("p_i", "p_o", "p_f")

_FUNCTIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ()),
    "relu": ("Relu", ()),
    "softplus": ("Softplus", ()),
    "softsign": ("Softsign", ()),
    "elu": ("Elu", (1.0,)),
    "leaky_relu": ("LeakyRelu", (0.01,)),
    "hardsigmoid": ("HardSigmoid", (1 / 6, 0.5)),
    "identity": ("Affine", (1.0, 0.0)),
}
"""The ONNX name of each activation function, with its alpha and beta."""

_DEFAULT_PARAMETERS = {
    "Elu": (1.0,),
    "LeakyRelu": (0.01,),
    "HardSigmoid": (0.2, 0.5),
    "Affine": (1.0, 0.0),
}


def to_onnx(module: nn.Module, *, lengths: bool = True, state: bool = False) -> Any:
    """Convert a network to an ONNX model for any batch size and number of steps.

    The input is ``x``, (T, B, I). The outputs are ``y``, (T, B, D*H), and each layer's last state
    ``h_0`` (and ``c_0``), ``h_1``, ..., (D, B, H).

    Args:
        module: The network.
        lengths: Whether to add an input ``lengths``, (B,) int32: valid steps of each row.
        state: Whether to add inputs ``initial_h_0`` (and ``initial_c_0``), ..., (D, B, H).

    Raises:
        ConfigError: ONNX has no operator for a cell.
        AbsentError: onnx is not installed.
    """
    nodes = []
    for layer in layers_of(module):
        equations = [equation_of(cell, _KINDS, "ONNX") for cell in layer]
        if len({(e.kind, e.cell.hidden_size, e.cell.bias_ih is None) for e in equations}) > 1:
            raise ConfigError("ONNX: the directions of a layer differ, expected the same cell.")
        nodes.append(_make_node(equations))
    return _make_model(nodes, lengths, state)


def from_onnx(model: Any) -> DeepRNN:
    """Convert the recurrent operators of an ONNX model to a network.

    Other operators may come before and after them; between them, only operators that change the
    shape. Lengths and initial states that are inputs of the model are dropped.

    Raises:
        ConfigError: There are no such operators, they do not follow each other, or seqnets has no
            such cell.
    """
    return stack(
        [
            tuple(_make_cell(node, direction) for direction in range(node.directions))
            for node in nodes_of(model)
        ]
    )


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


def run(model: Any, x: Array, lengths: Array) -> Array:
    """Return the outputs of a model's recurrent operators, as ONNX Runtime computes them.

    Args:
        model: The ONNX model.
        x: Inputs, (B, T, I).
        lengths: Valid steps of each row, (B,).

    Raises:
        AbsentError: ONNX Runtime is not installed.
    """
    runtime = library("onnxruntime")
    recurrent = _make_model(nodes_of(model), lengths=True, state=False)
    session = runtime.InferenceSession(
        recurrent.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.ascontiguousarray(x.swapaxes(0, 1))
    (y,) = session.run(["y"], {"x": x, "lengths": lengths.astype(np.int32)})
    return np.asarray(y.swapaxes(0, 1))


def nodes_of(model: Any) -> list[Node]:
    """Return the recurrent operators of a model, each of which takes the one before's output.

    Raises:
        ConfigError: There are no such operators, they do not follow each other, or their weights
            are not constants.
    """
    onnx = library("onnx")
    graph = model.graph
    constants = _constants(onnx, graph)
    producers = {name: node for node in graph.node for name in node.output}
    operators = {kind.operator for kind in _KINDS.values()}
    found = [node for node in graph.node if not node.domain and node.op_type in operators]
    if not found:
        raise ConfigError(f"ONNX: no operator is one of {', '.join(sorted(operators))}.")
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
    """Return the tensors of a graph that no input changes, by name; those of a cast uncast."""
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
    """Return the size of a tensor's axis; None if the model leaves it open."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.name == x and len(sizes) == 3:
            return sizes[axis].dim_value or None
    return None


def _make_cell(node: Node, direction: int) -> Cell:
    """Create the cell of one direction of an operator."""
    fitting = [
        cls
        for cls, kind in _KINDS.items()
        if kind.operator == node.operator
        and all(bool(node.attributes.get(k, 0)) == v for k, v in kind.attributes.items())
        and bool(cls.per_unit) == ("P" in node.tensors)
    ]
    kind = _KINDS[fitting[0]]
    weights = {name: tensor[direction] for name, tensor in node.tensors.items()}
    names = _read_functions(node, kind)[direction * len(kind.roles) :]
    functions = dict(zip(kind.roles, names, strict=False))
    sizes = weights["W"].shape[1], node.hidden_size
    cell = make_cell(fitting[0], functions, *sizes, bias="B" in weights)
    b, d = np.split(weights["B"], 2) if "B" in weights else (None, None)
    fill(cell, kind.order, weight_ih=weights["W"], weight_hh=weights["R"], bias_ih=b, bias_hh=d)
    if "P" in weights:
        for name, values in zip(_PEEPHOLES, np.split(weights["P"], 3), strict=True):
            if name in fitting[0].per_unit:  # a coupled gate has no peephole of its own
                getattr(cell.innermost, name).data.copy_(torch.from_numpy(values))
    return cell


def _read_functions(node: Node, kind: _Kind) -> list[str]:
    """Return the seqnets names of an operator's activations, for all directions."""
    names = node.attributes.get("activations") or [
        "Sigmoid" if role == "gate" else "Tanh"
        for _ in range(node.directions)
        for role in kind.roles
    ]
    given = [list(node.attributes.get(f"activation_{which}", ())) for which in ("alpha", "beta")]
    found = []
    for name in names:
        defaults = _DEFAULT_PARAMETERS.get(name, ())
        parameters = [
            values.pop(0) if values else default
            for values, default in zip(given, defaults, strict=False)
        ]
        ours = [
            our
            for our, (theirs, expected) in _FUNCTIONS.items()
            if theirs == name and np.allclose(parameters, expected, atol=1e-6)
        ]
        if not ours:
            raise ConfigError(
                f"ONNX: {node.operator} has the activation {name} {parameters or ''}, expected "
                f"one of {', '.join(theirs for theirs, _ in _FUNCTIONS.values())}, with the "
                f"parameters that seqnets uses."
            )
        found.append(ours[0])
    return found


def _make_node(equations: Sequence[Equation]) -> Node:
    """Create the operator of a layer from its equation in each direction."""
    first = equations[0]
    kind = _KINDS[first.kind]
    if getattr(first.cell, "proj_size", 0):
        raise ConfigError(f"ONNX: proj_size is {first.cell.proj_size}, expected 0: no projection.")
    tensors = {
        name: [gate_rows(e.cell, weight, kind.order) for e in equations]
        for name, weight in (("W", "weight_ih"), ("R", "weight_hh"))
    }
    if first.cell.bias_ih is not None:
        tensors["B"] = [
            np.concatenate([gate_rows(e.cell, f"bias_{side}", kind.order) for side in ("ih", "hh")])
            for e in equations
        ]
    if first.cell.per_unit:
        tensors["P"] = [
            np.concatenate([gate_rows(e.cell, name, [""]) for name in _PEEPHOLES])
            for e in equations
        ]
    attributes = {
        "hidden_size": first.cell.hidden_size,
        "direction": "bidirectional" if len(equations) == 2 else "forward",
        **kind.attributes,
        **_activation_attributes([e.functions[role] for e in equations for role in kind.roles]),
    }
    return Node(kind.operator, attributes, {k: np.stack(v) for k, v in tensors.items()})


def _activation_attributes(names: Sequence[str]) -> dict[str, Any]:
    """Return activation functions as attributes; only those that take alpha or beta list it."""
    unknown = [name for name in names if name not in _FUNCTIONS]
    if unknown:
        raise ConfigError(
            f"ONNX: the activation is {unknown[0]!r}, expected one of {', '.join(_FUNCTIONS)}."
        )
    functions = [_FUNCTIONS[name] for name in names]
    found: dict[str, Any] = {"activations": [name for name, _ in functions]}
    for index, attribute in enumerate(("activation_alpha", "activation_beta")):
        if values := [parameters[index] for _, parameters in functions if len(parameters) > index]:
            found[attribute] = values
    return found


def _make_model(nodes: Sequence[Node], lengths: bool, state: bool) -> Any:
    """Create a model of operators that follow each other; see :func:`to_onnx`."""
    onnx = library("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto

    def value(name: str, *shape: int | str, kind: int = kinds.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    def constant(name: str, values: Any) -> str:
        constants.append(onnx.numpy_helper.from_array(values, name))
        return name

    I = nodes[0].tensors["W"].shape[2]
    width = nodes[-1].directions * nodes[-1].hidden_size
    inputs, outputs = [value("x", "T", "B", I)], [value("y", "T", "B", width)]
    inputs += [value("lengths", "B", kind=kinds.INT32)] * lengths
    constants: list[Any] = []
    graph = []
    x = "x"
    for depth, node in enumerate(nodes):
        names = ["h", "c"] if node.operator == "LSTM" else ["h"]
        shape = (node.directions, "B", node.hidden_size)
        last = [f"{name}_{depth}" for name in names]
        initial = [f"initial_{name}" if state else "" for name in last]
        inputs += [value(name, *shape) for name in initial if name]
        outputs += [value(name, *shape) for name in last]
        given = {k: constant(f"{k}_{depth}", tensor) for k, tensor in node.tensors.items()}
        taken = [x, given["W"], given["R"], given.get("B", ""), "lengths" if lengths else ""]
        taken += [*initial, *([given["P"]] if "P" in given else [])]
        graph.append(
            helper.make_node(node.operator, taken, [f"all_{depth}", *last], **node.attributes)
        )
        x = "y" if depth == len(nodes) - 1 else f"y_{depth}"
        if node.directions == 1:  # (T, 1, B, H)
            axis = constant(f"direction_{depth}", np.array([1]))
            graph.append(helper.make_node("Squeeze", [f"all_{depth}", axis], [x]))
        else:  # (T, 2, B, H) to (T, B, 2H)
            merged = constant(f"shape_{depth}", np.array([0, 0, -1]))
            transposed = f"transposed_{depth}"
            graph.append(
                helper.make_node("Transpose", [f"all_{depth}"], [transposed], perm=[0, 2, 1, 3])
            )
            graph.append(helper.make_node("Reshape", [transposed, merged], [x]))
    return helper.make_model(
        helper.make_graph(graph, "seqnets", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="seqnets",
    )
