"""Evaluation of graphs by torch's operations, for one step or for many at once.

Used to differentiate and validate traces, to compute hoisted nodes, and by ``scan.py`` and
``eager/``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.engine.graph import BINARY, COMPARISONS, UNARY, Node, Place, overlap, places_read, walk
from seqnets.engine.step import Step


class Values(dict[Hashable, Tensor]):
    """Tensors by node, evaluated lazily and once.

    Args:
        leaf: Evaluates a leaf.
        like: A tensor with the dtype and device of constants.
        known: Values that are known already.
    """

    def __init__(
        self,
        leaf: Callable[[Node], Tensor],
        like: Tensor,
        known: Mapping[Any, Tensor] | None = None,
    ) -> None:
        super().__init__(known or {})
        self._leaf, self._like = leaf, like

    def __missing__(self, node: Any) -> Tensor:
        if node.op == "const":
            self[node] = self._like.new_full((), node.what)
        for n in walk([node], self):
            if n.op != "const" and n not in self:  # evaluating a leaf may have added it
                self[n] = self._leaf(n) if n.op == "leaf" else self._computed(n)
        return self[node]

    def _computed(self, node: Node) -> Tensor:
        args = [arg.what if arg.op == "const" else self[arg] for arg in node.args]
        some = any(isinstance(arg, Tensor) and arg.is_floating_point() for arg in args)
        if not some or node.op == "atan2":
            args = [self[arg] for arg in node.args]  # Python numbers alone would give float32
        if node.op in COMPARISONS | {"remainder"}:  # need a tensor first
            args[0] = self[node.args[0]]
        return OPERATIONS[node.op](*args)


def parameters_of(step: Step, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The parameters of a step, in the dtype of the loops: masks and counts are converted too."""
    return {
        name: tensor if (tensor := tensors[name]).dtype is dtype else tensor.to(dtype)
        for name in step.parameters
    }


def values_of(
    step: Step, wx: Tensor, state: Mapping[int, Tensor], parameters: Mapping[str, Tensor]
) -> Values:
    """The values of a step's nodes, (B, columns) for one step or (B, T, columns) for many.

    Args:
        step: The traced step.
        wx: The projected input; the raw input, where the step includes the projection.
        state: State parts before each step.
        parameters: The step's parameters.
    """
    pieces = _cut(wx, step)
    products: dict[int, Tensor] = {}

    def product(k: int) -> Tensor:
        if k not in products:
            value, weight = step.products[k].value, step.products[k].weight
            whole = values[value].expand(*wx.shape[:-1], weight.columns)
            factor = weight.of(parameters[weight.name])
            products[k] = (F.linear if step.is_learned(k) else _moved)(whole, factor)
        return products[k]

    def leaf(node: Node) -> Tensor:
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "reduction":
            value, op = step.reductions[key].value, step.reductions[key].op
            return reduced(op, values[value].expand(*wx.shape[:-1], value.width))
        if source == "product":
            return columns_of(product(key), offset, node.width)
        if source == "parameter":
            return columns_of(parameters[key].flatten(), offset, node.width)
        if source == "state":
            return columns_of(state[key], offset, node.width)
        piece = pieces.get((offset, node.width))
        return columns_of(wx, offset, node.width) if piece is None else piece

    values = Values(leaf, wx)
    return values


def _moved(units: Tensor, matrix: Tensor) -> Tensor:
    """``F.linear``, but never in bfloat16: some units are compared with what they become."""
    if units.is_cpu and not torch.compiler.is_compiling():  # which cannot follow the setting
        setting = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
        if setting not in ("none", "ieee"):
            return (units.double() @ matrix.double().T).to(units.dtype)
    return units @ matrix.T  # which no tiles replace


def replay(
    step: Step, wx: Tensor, state: Sequence[Tensor], parameters: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """Run one step: the state after it, from inputs (B, W) and the state, each (B, H)."""
    values = values_of(step, wx, dict(enumerate(state)), parameters)
    sizes = zip(step.state, step.state_sizes, strict=True)
    return tuple(values[node].expand(wx.shape[0], size) for node, size in sizes)


def reduced(op: str, value: Tensor) -> Tensor:
    """A reduction over units, (B, 1); "max" is detached."""
    return value.sum(-1, True) if op == "sum" else value.detach().amax(-1, True)


def columns_of(whole: Tensor, offset: int, width: int) -> Tensor:
    """A range of columns; a scalar if ``width`` is 0."""
    return whole[..., offset : offset + width] if width else whole.reshape(())


def _bounded(pick: Callable[..., Tensor], bound: str) -> Callable[..., Any]:
    """A maximum or minimum of two tensors, or of a tensor and a number, which bounds it."""

    def operation(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor):
            a, b = b, a
        return pick(a, b) if isinstance(b, Tensor) else torch.clamp(a, **{bound: b})

    return operation


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{op: getattr(torch, op) for op in UNARY | BINARY | COMPARISONS},
    "maximum": _bounded(torch.maximum, "min"),
    "minimum": _bounded(torch.minimum, "max"),
    # Python's put the tensor first, which torch's exporter to ONNX asks for.
    "add": operator.add,
    "mul": operator.mul,
    "sub": operator.sub,
    "where": torch.where,
}


def _cut(wx: Tensor, step: Step) -> dict[Place, Tensor]:
    """The columns of each leaf of the input, by offset and width; empty if leaves overlap.

    One split gives them all, so that autograd concatenates their gradients once.
    """
    columns = places_read(walk(step.roots)).get(("wx", None), [])
    if overlap(columns):
        return {}
    ends = {0, wx.shape[-1], *(end for first, width in columns for end in (first, first + width))}
    places = [(first, end - first) for first, end in pairwise(sorted(ends))]
    pieces = wx.split([width for _, width in places], -1)
    return dict(zip(places, pieces, strict=True))
