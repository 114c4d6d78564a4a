"""Conversion to and from ONNX: the operators RNN, GRU and LSTM, or a ``Scan``, for each layer."""

from __future__ import annotations

from collections.abc import Sequence
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
from seqnets.conversion.equations import Equation, equation_of, fill, gate_rows, make_cell
from seqnets.conversion.networks import layers_of, stack
from seqnets.conversion.onnx_graph import Node, nodes_of
from seqnets.conversion.onnx_model import model_of
from seqnets.conversion.onnx_scan import steps_of
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN


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
    ``h_0`` (and ``c_0``), ``h_1``, ..., (D, B, H). A layer for which ONNX has no operator becomes
    one ``Scan`` for each direction, whose body is the cell's step.

    Args:
        module: The network.
        lengths: Whether to add an input ``lengths``, (B,) int32: valid steps of each row.
        state: Whether to add inputs ``initial_h_0`` (and ``initial_c_0``), ..., (D, B, H). What a
            cell starts with, if that is not zero, is then in the model's metadata under the name of
            the input, as JSON of (D, 1, H).

    Raises:
        ConfigError: ONNX has no operator for a cell, and its step cannot be written as a graph.
        AbsentError: onnx is not installed.
    """
    layers = [_node_of(layer) or tuple(map(steps_of, layer)) for layer in layers_of(module)]
    return model_of(layers, lengths, state)


def _node_of(layer: Sequence[Cell]) -> Node | None:
    """The operator of a layer; None if ONNX has none."""
    try:
        equations = [equation_of(cell, _KINDS, "ONNX") for cell in layer]
        if len({(e.kind, e.cell.hidden_size, e.cell.bias_ih is None) for e in equations}) > 1:
            return None
        return _make_node(equations)
    except ConfigError:
        return None


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
    """The seqnets names of an operator's activations, for all directions."""
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
    first.check_projection("ONNX")
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
    """Activation functions as attributes; only those that take alpha or beta list it."""
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
