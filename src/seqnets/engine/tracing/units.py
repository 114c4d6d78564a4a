"""Indexing for the tracer: how the dimensions of a step's tensors map to rows and units.

One dimension holds the rows, or none if the tensor is the same for all rows; all others are units,
flattened in row-major order. Dimensions of size 1 may be anywhere. The rows' dimension may hold
several units of each row as well, with those of a row adjacent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from seqnets.engine.graph import Graph, Node, Untraceable


class Units:
    """Slices, concatenations and reductions along a dimension, as nodes.

    Args:
        graph: The graph in which nodes are built.
        rows: Rows of the batch; no other size is a multiple of it.
    """

    def __init__(self, graph: Graph, rows: int) -> None:
        self.graph = graph
        self.rows = rows

    def places(self, shape: Sequence[int]) -> list[int]:
        """The dimensions that hold rows: at most one, unless rows are combined with rows."""
        return [dim for dim, size in enumerate(shape) if size and size % self.rows == 0]

    def count(self, shape: Sequence[int]) -> int | None:
        """Units in each row of a tensor; None if rows are combined with rows."""
        places = self.places(shape)
        return None if len(places) > 1 else math.prod(shape) // self.rows ** len(places)

    def before_rows(self, shape: Sequence[int]) -> int:
        """The product of the sizes before the rows' dimension."""
        return math.prod(shape[: (self.places(shape) or [0])[0]])

    def part(
        self, name: str, node: Node, shape: Sequence[int], dim: int, first: int, many: int
    ) -> Node:
        """A slice of a tensor.

        Args:
            name: The operation's name, for error messages.
            node: The tensor's node.
            shape: The tensor's shape.
            dim: The dimension that is sliced.
            first: Where the slice begins.
            many: Its length.

        Raises:
            Untraceable: The slice would select rows.
        """
        outer, size, inner = self._around(name, shape, dim)
        if many == size or not node.width:
            return node
        whole = self.graph.spread(node, outer * size * inner)
        firsts = ((i * size + first) * inner for i in range(outer))
        return self.graph.cat(*(self.graph.part(whole, first, many * inner) for first in firsts))

    def joined(
        self, name: str, nodes: Sequence[Node], shapes: Sequence[Sequence[int]], dim: int
    ) -> Node:
        """The concatenation of tensors along a dimension."""
        pieces = []
        for node, shape in zip(nodes, shapes, strict=True):
            outer, size, inner = self._around(name, shape, dim)
            width = size * inner
            whole = self.graph.spread(node, outer * width)
            pieces.append([self.graph.part(whole, i * width, width) for i in range(outer)])
        return self.graph.cat(*chain.from_iterable(zip(*pieces, strict=True)))

    def reduced(self, name: str, op: str, node: Node, shape: Sequence[int], dim: int) -> Node:
        """The reduction of a tensor along a dimension."""
        outer, size, inner = self._around(name, shape, dim)
        graph, width = self.graph, size * inner
        if not node.width:  # the same for all units
            return node if op == "max" else graph.apply("mul", node, graph.const(size))
        whole = graph.spread(node, outer * width)
        wholes = [graph.part(whole, i * width, width) for i in range(outer)]
        if inner == 1:
            return graph.cat(*(graph.reduce(op, whole) for whole in wholes))
        firsts = range(0, width, inner)
        return graph.cat(
            *(graph.fold(op, [graph.part(w, first, inner) for first in firsts]) for w in wholes)
        )

    def repeated(self, node: Node, shape: Sequence[int], dim: int) -> Node:
        """A reduction's result, broadcast back to the shape of its operand."""
        outer, size, inner = self._around("expand", shape, dim)
        if outer * inner == 1 or not node.width:  # broadcasts implicitly
            return node
        return self.stretched(node, outer, size, inner)

    def stretched(self, node: Node, outer: int, size: int, inner: int) -> Node:
        """Units of shape (outer, 1, inner), repeated to (outer, size, inner)."""
        rows = (self.graph.part(node, i * inner, inner) for i in range(outer))
        if inner == 1:
            return self.graph.cat(*(self.graph.spread(row, size) for row in rows))
        return self.graph.cat(*(row for row in rows for _ in range(size)))

    def _around(self, name: str, shape: Sequence[int], dim: int) -> tuple[int, int, int]:
        """A row's units before a dimension, the dimension's size, and the units after it."""
        dim %= len(shape)
        before, after = self.count(shape[:dim]), self.count(shape[dim + 1 :])
        if before is None or after is None or dim in self.places(shape):
            raise Untraceable(f"aten.{name} across rows")
        return before, shape[dim], after


def sizes_of(shape: Sequence[int]) -> list[int]:
    """The sizes other than 1."""
    return [size for size in shape if size != 1]
