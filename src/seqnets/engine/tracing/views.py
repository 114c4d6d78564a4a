"""Tracing of views, transpositions, slices and concatenations: no arithmetic, only other places.

Each function gives the meaning of an operation's result, or a list of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqnets.engine.graph import Node, Untraceable
from seqnets.engine.step import Weight
from seqnets.engine.tracing.meanings import UNWRITTEN, Meaning, Operation, described
from seqnets.engine.tracing.units import sizes_of

if TYPE_CHECKING:
    from seqnets.engine.tracing.recorder import Recorder

RESHAPED = {
    "alias", "clone", "lift_fresh", "contiguous", "view", "_unsafe_view", "expand",
    "reshape", "unsqueeze", "squeeze", "_to_copy",
}  # fmt: skip
"""Operations that keep all numbers in their order."""
SLICED = {
    "slice", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "narrow",
    "select", "unbind",
}  # fmt: skip
TURNED = {"t", "transpose", "numpy_T", "permute"}
JOINED = {"cat", "stack"}
VIEWS = RESHAPED | SLICED | TURNED


def reshaped(recorder: Recorder, operation: Operation) -> Meaning:
    """The same units, or one number per row broadcast to several."""
    name, before, after = operation.name, operation.args[0], operation.result
    meaning = operation.meaning
    if isinstance(meaning, Node) and not meaning.width:
        return meaning
    if isinstance(meaning, Weight) and sizes_of(before.shape) == sizes_of(after.shape):
        return meaning
    if name == "expand" and isinstance(meaning, Weight) and meaning.rows == 1:
        meaning = recorder.node(before)
    width, before_rows = recorder.units.count(after.shape), recorder.units.before_rows
    if isinstance(meaning, Node) and width is not None:
        if width == meaning.width and before_rows(before.shape) == before_rows(after.shape):
            return meaning
        if meaning.width == 1 and name == "expand":
            return recorder.graph.spread(meaning, width)
    if after.dim() > 2:  # rejected when something computes with it
        return None
    raise Untraceable(f"aten.{name} of {described(before, meaning)}")


def turned(recorder: Recorder, operation: Operation) -> Meaning:
    """A transposition; dimensions of size 1 do not count."""
    whole, meaning = operation.args[0], operation.meaning
    order = list(range(whole.dim()))
    if operation.name == "permute":
        order = [dim % whole.dim() for dim in operation.args[1]]
    elif whole.dim() > 1:
        a, b = operation.args[1:] or (0, 1)
        order[a], order[b] = order[b], order[a]
    if not isinstance(meaning, Weight) or whole.dim() > 2:
        some = (1, recorder.units.rows)  # the rows' dimension may stand anywhere
        order = [dim for dim in order if whole.shape[dim] not in some]
    if order == sorted(order):
        return meaning
    if not isinstance(meaning, Weight) or len(order) != 2:
        raise Untraceable(f"aten.{operation.name} of {described(whole, meaning)}")
    return meaning.transposed


def sliced(recorder: Recorder, operation: Operation) -> Meaning | list[Meaning]:
    """One slice along a dimension, or a list of them that follow each other."""
    name, (whole, *args), result = operation.name, operation.args, operation.result
    at = 0 if name in ("slice", "narrow", "select", "unbind") else 1
    dim = args[at] % whole.dim() if len(args) > at else 0
    step = args[3] if name == "slice" and len(args) > 3 else 1
    meaning = operation.meaning
    alike = meaning == UNWRITTEN or (isinstance(meaning, Node) and not meaning.width)
    if step != 1 and not alike:
        raise Untraceable(f"aten.slice in steps of {step} of {described(whole, meaning)}")
    size, first = whole.shape[dim], 0
    if name in ("slice", "narrow", "select"):
        first = args[1] if len(args) > 1 and args[1] is not None else 0
        first = min(first + size if first < 0 else first, size)
    found = []
    for tensor in [result] if isinstance(result, Tensor) else result:
        many = 1 if name in ("select", "unbind") else tensor.shape[dim]
        found.append(_slice(recorder, operation, dim, first, many))
        first += many
    return found[0] if isinstance(result, Tensor) else found


def _slice(recorder: Recorder, operation: Operation, dim: int, first: int, many: int) -> Meaning:
    whole, meaning = operation.args[0], operation.meaning
    if not many:
        raise Untraceable("a part of no units")
    if isinstance(meaning, Weight) and whole.dim() == 2:
        return meaning.part(dim, first, many)
    if isinstance(meaning, Node):
        return recorder.units.part(operation.name, meaning, whole.shape, dim, first, many)
    if whole.dim() > 2 or meaning == UNWRITTEN:  # rejected when computed with
        return meaning if isinstance(meaning, str) else None
    raise Untraceable(f"a part of {described(whole, meaning)}")


def joined(
    recorder: Recorder, name: str, result: Tensor, tensors: Sequence[Tensor], dim: int = 0
) -> Node:
    """A concatenation, or a stack."""
    dim %= result.dim()
    shapes = [list(tensor.shape) for tensor in tensors]
    if name == "stack":
        for shape in shapes:
            shape.insert(dim, 1)
    node = recorder.node if result.dtype == torch.bool else recorder.number
    return recorder.units.joined(name, list(map(node, tensors)), shapes, dim)
