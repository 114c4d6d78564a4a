"""Writing ONNX models, of layers that follow each other, and running them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqnets.conversion.libraries import Array, library
from seqnets.conversion.onnx_graph import Node, nodes_of
from seqnets.conversion.onnx_scan import Steps, add_scan
from seqnets.conversion.onnx_step import Builder

_OPSET, _IR = 14, 8  # every ONNX Runtime for Python 3.10 and newer reads these

Layer = Node | tuple[Steps, ...]
"""An operator of all directions, or the steps of each."""


def model_of(layers: Sequence[Layer], lengths: bool, state: bool) -> Any:
    """Create a model of layers that follow each other.

    The inverse of :func:`nodes_of`, if all are operators.

    Args:
        layers: The layers.
        lengths: Whether to add an input ``lengths``; see :func:`seqnets.conversion.to_onnx`.
        state: Whether to add inputs for the initial states; likewise.
    """
    return _Model(layers, lengths, state).made()


def run(model: Any, x: Array, lengths: Array) -> Array:
    """The outputs of a model's recurrent layers, as ONNX Runtime computes them.

    Args:
        model: A model whose recurrent operators can be read, or one of our own with a ``Scan``.
            It is given the states that its cells start with.
        x: Inputs, (B, T, I).
        lengths: Valid steps of each row, (B,).

    Raises:
        AbsentError: ONNX Runtime is not installed.
    """
    runtime = library("onnxruntime")
    if not any(node.op_type == "Scan" for node in model.graph.node):
        model = model_of(nodes_of(model), lengths=True, state=False)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    sizes = {given.name: given.shape for given in session.get_inputs()}
    starts = {each.key: json.loads(each.value) for each in model.metadata_props}
    found = []
    groups = [slice(None)] if "lengths" in sizes else [slice(b, b + 1) for b in range(len(x))]
    for rows in groups:
        steps = int(lengths[rows].max())
        inputs = np.ascontiguousarray(x[rows, :steps].swapaxes(0, 1))
        fed = {"x": inputs, "lengths": lengths[rows].astype(np.int32)}
        for name in sizes.keys() - fed.keys():
            D, _, H = sizes[name]
            start = np.array(starts.get(name, 0), np.float32)
            fed[name] = np.broadcast_to(start, (D, inputs.shape[1], H))
        (y,) = session.run(["y"], {name: fed[name] for name in sizes})
        found.append(np.pad(y, [(0, x.shape[1] - steps), (0, 0), (0, 0)]))
    return np.concatenate(found, 1).swapaxes(0, 1)


class _Model:
    """A model that is being made: the nodes so far, its inputs and outputs."""

    def __init__(self, layers: Sequence[Layer], lengths: bool, state: bool) -> None:
        self._layers, self._lengths, self._state = layers, lengths, state
        self._to = Builder(library("onnx"))
        kinds = self._to.onnx.TensorProto
        self._inputs = [self._value("x", "T", "B", _input_size(layers[0]))]
        self._inputs += [self._value("lengths", "B", kind=kinds.INT32)] * lengths
        self._outputs = [self._value("y", "T", "B", _output_size(layers[-1]))]
        self._starts: dict[str, str] = {}
        self._valid = ""

    def made(self) -> Any:
        """The model."""
        if self._lengths and not all(isinstance(layer, Node) for layer in self._layers):
            self._valid = self._mask()
        x = "x"
        for depth, layer in enumerate(self._layers):
            y = "y" if depth == len(self._layers) - 1 else f"y_{depth}"
            if isinstance(layer, Node):
                self._add_operator(layer, depth, x, y)
            else:
                self._add_steps(layer, depth, x, y)
            x = y
        helper, to = self._to.onnx.helper, self._to
        model = helper.make_model(
            helper.make_graph(to.nodes, "seqnets", self._inputs, self._outputs, to.constants),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
            producer_name="seqnets",
        )
        helper.set_model_props(model, self._starts)
        return model

    def _value(self, name: str, *shape: int | str, kind: int | None = None) -> Any:
        kind = self._to.onnx.TensorProto.FLOAT if kind is None else kind
        return self._to.onnx.helper.make_tensor_value_info(name, kind, shape)

    def _mask(self) -> str:
        """Which steps are valid, (T, B, 1)."""
        to = self._to
        first, one, axes = (to.constant(np.array(v)) for v in (0, 1, [1, 2]))
        size = to.add("Gather", to.add("Shape", "x"), first)
        steps = to.add("Unsqueeze", to.add("Range", first, size, one), axes)
        lengths = to.add("Cast", "lengths", to=to.onnx.TensorProto.INT64)
        return to.add("Less", steps, to.add("Unsqueeze", lengths, to.constant([1])))

    def _add_operator(self, node: Node, depth: int, x: str, y: str) -> None:
        """Add an operator that ONNX has."""
        to = self._to
        names = ["h", "c"] if node.operator == "LSTM" else ["h"]
        shape = (node.directions, "B", node.hidden_size)
        last, initial = self._add_states([(name, shape) for name in names], depth)
        given = {k: to.constant(tensor, f"{k}_{depth}") for k, tensor in node.tensors.items()}
        taken = [x, given["W"], given["R"], given.get("B", ""), "lengths" if self._lengths else ""]
        taken += [*initial, *([given["P"]] if "P" in given else [])]
        to.add_node(node.operator, taken, [f"all_{depth}", *last], **node.attributes)
        if node.directions == 1:  # (T, 1, B, H)
            axis = to.constant(np.array([1]), f"direction_{depth}")
            to.add("Squeeze", f"all_{depth}", axis, name=y)
        else:  # (T, 2, B, H) to (T, B, 2H)
            merged = to.constant(np.array([0, 0, -1]), f"shape_{depth}")
            apart = to.add("Transpose", f"all_{depth}", perm=[0, 2, 1, 3])
            to.add("Reshape", apart, merged, name=y)

    def _add_steps(self, layer: tuple[Steps, ...], depth: int, x: str, y: str) -> None:
        """Add a cell that runs step by step, in each direction."""
        to, D = self._to, len(layer)
        parts = zip(layer[0].states, layer[0].start, strict=True)
        shapes = [(name, (D, "B", start.shape[1])) for name, start in parts]
        last, initial = self._add_states(shapes, depth)
        for name, *starts in zip(initial, *(steps.start for steps in layer), strict=True):
            if name and any(start.any() for start in starts):
                self._starts[name] = json.dumps(np.stack(starts).tolist())
        outputs, finals = [], []
        for direction, steps in enumerate(layer):
            if self._state:
                which = to.constant(np.array(direction))
                before = [to.add("Gather", name, which, axis=0) for name in initial]
            else:
                before = [self._repeated(start) for start in steps.start]
            found, final = add_scan(to, steps, x, self._valid, before, direction == 1)
            outputs.append(found)
            finals.append([to.add("Unsqueeze", part, to.constant([0])) for part in final])
        to.add("Concat", *outputs, name=y, axis=-1)
        for name, directions in zip(last, zip(*finals, strict=True), strict=True):
            to.add("Concat", *directions, name=name, axis=0)

    def _repeated(self, start: Any) -> str:
        """A state that all rows begin with, (B, H)."""
        to = self._to
        rows = to.add("Slice", to.add("Shape", "x"), to.constant([1]), to.constant([2]))
        shape = to.add("Concat", rows, to.constant([1]), axis=0)
        return to.add("Expand", to.constant(start), shape)

    def _add_states(
        self, states: Sequence[tuple[str, tuple[int | str, ...]]], depth: int
    ) -> tuple[list[str], list[str]]:
        """Add a layer's last states, and initial ones if they are asked for: their names."""
        last = [f"{name}_{depth}" for name, _ in states]
        initial = [f"initial_{name}" if self._state else "" for name in last]
        for (_, shape), name, before in zip(states, last, initial, strict=True):
            self._outputs.append(self._value(name, *shape))
            if before:
                self._inputs.append(self._value(before, *shape))
        return last, initial


def _input_size(layer: Layer) -> int:
    return layer.tensors["W"].shape[2] if isinstance(layer, Node) else layer[0].input_size


def _output_size(layer: Layer) -> int:
    if isinstance(layer, Node):
        return layer.directions * layer.hidden_size
    return sum(steps.start[0].shape[1] for steps in layer)
