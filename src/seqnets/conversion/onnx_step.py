"""A traced step as nodes of ONNX, all of its standard set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from typing_extensions import Self

from seqnets.conversion.libraries import Array
from seqnets.engine.graph import COMPARISONS, Node, walk
from seqnets.engine.step import Step


class Builder:
    """Collects the nodes of a graph, and the constants of a whole model.

    Attributes:
        onnx: The library.
        nodes: The graph's nodes, each after those whose outputs it takes.
        constants: The tensors that no input changes, of all graphs of the model.
    """

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: dict[str, int] = {}
        self._known: dict[tuple[Any, ...], str] = {}

    def inner(self) -> Self:
        """A builder of a graph inside of this one."""
        inner = type(self)(self.onnx)
        inner.constants, inner._names, inner._known = self.constants, self._names, self._known
        return inner

    def name(self, hint: str) -> str:
        """A name that nothing in the model has."""
        self._names[hint] = count = self._names.get(hint, 0) + 1
        return f"{hint}{count}"

    def constant(self, values: Any, name: str | None = None) -> str:
        """Add a tensor that no input changes, once unless it is named."""
        values = np.asarray(values)
        key = values.dtype, values.shape, values.tobytes()
        if name is None and key in self._known:
            return self._known[key]
        name = name or self._known.setdefault(key, self.name("constant"))
        self.constants.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        name = name or self.name(operator.lower())
        self.add_node(operator, inputs, [name], **attributes)
        return name

    def add_node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a node with any number of outputs."""
        node = self.onnx.helper.make_node(operator, inputs, outputs, **attributes)
        self.nodes.append(node)

    def columns(self, whole: str, size: int, offset: int, width: int) -> str:
        """Some columns of a tensor with ``size`` of them."""
        if (offset, width) == (0, size):
            return whole
        begin, end, axis = ([offset], [offset + width], [-1])
        return self.add("Slice", whole, *map(self.constant, (begin, end, axis)))

    def together(self, parts: Sequence[str]) -> str:
        """The columns of several tensors, side by side."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=-1)


class StepPrinter:
    """Adds the nodes of a step's values to a graph, each value once.

    Args:
        builder: The graph's builder.
        step: The step.
        tensors: What the step reads as parameters, by name.
        inputs: The names and columns of its inputs, by their sources in the graph, "x" and "wx":
            (B, columns) each, or (T, B, columns) for all steps at once.
        state: The names of the state's parts before it, (B, H).
    """

    def __init__(
        self,
        builder: Builder,
        step: Step,
        tensors: Mapping[str, Array],
        inputs: Mapping[str, tuple[str, int]],
        state: Sequence[str] = (),
    ) -> None:
        self._to, self._step, self._tensors = builder, step, tensors
        self._inputs, self._state = inputs, state
        self._made: dict[Any, str] = {}

    def full(self, node: Node, width: int) -> str:
        """A value, (B, width) or (T, B, width)."""
        name = self._number(node)
        if _is_whole(node, width):
            return name
        return self._to.add("Expand", name, self._once(("shape", width), self._shape, width))

    def _once(self, key: Any, make: Callable[..., str], *args: Any) -> str:
        if key not in self._made:
            self._made[key] = make(*args)
        return self._made[key]

    def _shape(self, width: int) -> str:
        to = self._to
        x, _ = next(iter(self._inputs.values()))
        rows = to.add("Slice", to.add("Shape", x), to.constant([0]), to.constant([-1]))
        return to.add("Concat", rows, to.constant([width]), axis=0)

    def _number(self, node: Node) -> str:
        """A value as numbers: 1 and 0 for true and false."""
        name = self._value(node)
        if node.op not in COMPARISONS:
            return name
        kind = self._to.onnx.TensorProto.FLOAT
        return self._once(("number", node), lambda: self._to.add("Cast", name, to=kind))

    def _value(self, node: Node) -> str:
        return self._once(node, self._new, node)

    def _new(self, node: Node) -> str:
        if node.op == "const":
            return self._to.constant(np.float32(node.what))
        if node.op == "leaf":
            return self._leaf(node)
        if node.op == "where":
            condition, *both = node.args
            return self._to.add("Where", self._truth(condition), *map(self._number, both))
        args = [self._number(arg) for arg in node.args]
        if node.op in _COMPOSED:
            return _COMPOSED[node.op](self._to, *args)
        return self._to.add(_OPERATORS[node.op], *args)

    def _truth(self, node: Node) -> str:
        if node.op in COMPARISONS:
            return self._value(node)
        return self._to.add("Cast", self._value(node), to=self._to.onnx.TensorProto.BOOL)

    def _leaf(self, leaf: Node) -> str:
        source, key, offset = leaf.what.source, leaf.what.key, leaf.what.offset
        if source == "parameter":
            values = self._tensors[key].reshape(-1)
            values = values[offset : offset + leaf.width] if leaf.width else values.reshape(())
            return self._to.constant(values)
        if source == "reduction":
            return self._once(("reduction", key), self._reduction, key)
        if source == "product":
            whole = self._once(("product", key), self._product, key)
            size = self._step.products[key].weight.rows
        elif source == "state":
            whole, size = self._state[key], self._step.state_sizes[key]
        else:
            whole, size = self._inputs[source]
        return self._to.columns(whole, size, offset, leaf.width)

    def _product(self, key: int) -> str:
        value, weight = self._step.products[key].value, self._step.products[key].weight
        matrix = self._tensors[weight.name]
        matrix = matrix.T if weight.turned else matrix
        rows = slice(weight.offset, weight.offset + weight.rows)
        block = matrix[rows, weight.first : weight.first + weight.columns]
        values = self.full(value, weight.columns)
        return self._to.add("MatMul", values, self._to.constant(np.ascontiguousarray(block.T)))

    def _reduction(self, key: int) -> str:
        reduction = self._step.reductions[key]
        values = self.full(reduction.value, reduction.value.width)
        if reduction.op == "max":
            return self._to.add("ReduceMax", values, axes=[-1])
        return self._to.add("ReduceSum", values, self._to.constant([-1]))


def _is_whole(node: Node, width: int) -> bool:
    """Whether a value has a row for each of the batch, and all columns, without being broadcast."""
    leaves = [leaf for leaf in walk([node]) if leaf.op == "leaf"]
    rows = any(leaf.what.source != "parameter" for leaf in leaves)
    return rows and any(
        leaf.width == width and (width == 1 or leaf.what.source != "reduction") for leaf in leaves
    )


_OPERATORS = {
    **{op: op.capitalize() for op in (
        "neg", "sigmoid", "tanh", "exp", "log", "relu", "abs", "sqrt", "reciprocal", "sin", "cos",
        "sign", "erf", "floor", "sinh", "cosh", "asinh", "acosh", "asin", "acos", "atan", "add",
        "sub", "mul", "div",
    )},
    "maximum": "Max", "minimum": "Min", "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual",
    "le": "LessOrEqual", "eq": "Equal", "detach": "Identity",
}  # fmt: skip


def _remainder(to: Builder, a: str, b: str) -> str:
    """The remainder of a division, with the sign of the divisor."""
    left = to.add("Mod", a, b, fmod=1)  # with the sign of the dividend
    other = to.add("Less", to.add("Mul", left, b), to.constant(np.float32(0)))
    return to.add("Where", other, to.add("Add", left, b), left)


def _atan2(to: Builder, y: str, x: str) -> str:
    """The angle of a point: an arc tangent, and half a turn where x is negative."""
    zero, half, quarter = (to.constant(np.float32(v)) for v in (0, math.pi, math.pi / 2))
    turn = to.add("Where", to.add("Less", y, zero), to.add("Neg", half), half)
    here = to.add("Atan", to.add("Div", y, x))
    turned = to.add("Where", to.add("Less", x, zero), to.add("Add", here, turn), here)
    upright = to.add("Mul", to.add("Sign", y), quarter)
    return to.add("Where", to.add("Equal", x, zero), upright, turned)


_COMPOSED: dict[str, Callable[..., str]] = {
    "ne": lambda to, a, b: to.add("Not", to.add("Equal", a, b)),
    "rsqrt": lambda to, a: to.add("Reciprocal", to.add("Sqrt", a)),
    "log1p": lambda to, a: to.add("Log", to.add("Add", a, to.constant(np.float32(1)))),
    "expm1": lambda to, a: to.add("Sub", to.add("Exp", a), to.constant(np.float32(1))),
    "exp2": lambda to, a: to.add("Pow", to.constant(np.float32(2)), a),
    "remainder": _remainder,
    "atan2": _atan2,
}
"""Operations that ONNX lacks, composed of others."""
