"""Tracing of reductions over the units of a row: sum, mean, maximum and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqnets.engine.graph import Node, Untraceable
from seqnets.engine.tracing.meanings import Operation

if TYPE_CHECKING:
    from seqnets.engine.tracing.recorder import Recorder

REDUCED = {"sum", "mean", "amax"}
NORMALISED = {"_softmax", "_log_softmax"}


def reduced(recorder: Recorder, operation: Operation) -> Node:
    """A sum or mean along one dimension, or a maximum along adjacent ones; those of 1 are none."""
    name, (value, *rest) = operation.name, operation.args
    dims = (*rest, None)[0] or []
    dims = [dim for dim in dims if value.shape[dim] != 1] or dims[:1]
    if not dims or (len(dims) > 1 and name != "amax"):
        raise over_others(name)
    if name == "amax":
        return _largest(recorder, recorder.node(value), *_as_one(value.shape, dims))
    place = value.shape, dims[0]
    total = recorder.units.reduced(name, "sum", recorder.number(value), *place)
    count = recorder.graph.const(1 / value.shape[dims[0]])
    return total if name == "sum" else recorder.graph.apply("mul", total, count)


def _as_one(shape: Sequence[int], dims: Sequence[int]) -> tuple[list[int], int]:
    """A shape in which adjacent dimensions are one, and where that is; others of 1 are no gap."""
    places = sorted(dim % len(shape) for dim in dims)
    first, end = places[0], places[-1] + 1
    if math.prod(shape[first:end]) != math.prod(shape[place] for place in places):
        raise over_others("amax")
    return [*shape[:first], math.prod(shape[first:end]), *shape[end:]], first


def _largest(recorder: Recorder, node: Node, shape: Sequence[int], dim: int) -> Node:
    """The maximum; as in torch, equal maxima share the gradient equally."""
    apply, const, units = recorder.graph.apply, recorder.graph.const, recorder.units
    largest = units.reduced("amax", "max", node, shape, dim)
    if all(each.op == "detach" for each in node.pieces):
        return largest
    largest = units.repeated(largest, shape, dim)
    found = apply("eq", node, largest)
    total, count = (
        units.reduced("amax", "sum", apply("where", found, each, const(0)), shape, dim)
        for each in (node, const(1))
    )
    return apply("div", total, count)


def over_others(name: str) -> Untraceable:
    """The refusal of a reduction over all numbers, or several dimensions at once."""
    each = f"x.flatten(1).{'amax' if name == 'max' else name}(-1, keepdim=True)"
    return Untraceable(f"aten.{name} over other than the units of a row; instead: {each}")


def normalised(recorder: Recorder, operation: Operation) -> Node:
    """Softmax or log-softmax."""
    name, (value, dim, *_) = operation.name, operation.args
    apply, units, node = recorder.graph.apply, recorder.units, recorder.node(value)
    place = value.shape, dim
    largest = units.repeated(units.reduced(name, "max", node, *place), *place)
    below = apply("sub", node, largest)
    exponentials = apply("exp", below)
    total = units.repeated(units.reduced(name, "sum", exponentials, *place), *place)
    if name == "_softmax":
        return apply("div", exponentials, total)
    return apply("sub", below, apply("log", total))
