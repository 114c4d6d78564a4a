"""Where the units of a row lie in a tensor of a step, and what its dimensions mean for nodes.

A tensor has a dimension of rows, or none if it is the same for all; all others are units, those of
the last one beside each other. Dimensions of size 1 may be anywhere. In the dimension of rows some
units of each may lie as well, one row's after the other's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from seqnets.engine.graph import Graph, Node, Untraceable


class Units:
    """Operations along a dimension.

    Args:
        graph: Where nodes are made.
        rows: Rows of a batch, a size that nothing else has.
    """

    def __init__(self, graph: Graph, rows: int) -> None:
        self.graph = graph
        self.rows = rows

    def places(self, shape: Sequence[int]) -> list[int]:
        """The dimensions of rows: one, or none; if there are more, rows lie across rows."""
        return [dim for dim, size in enumerate(shape) if size and size % self.rows == 0]

    def count(self, shape: Sequence[int]) -> int | None:
        """How many there are in a row of a tensor; None if rows lie across rows."""
        places = self.places(shape)
        return None if len(places) > 1 else math.prod(shape) // self.rows ** len(places)

    def before_rows(self, shape: Sequence[int]) -> int:
        """How many lie in dimensions before that of rows."""
        return math.prod(shape[: (self.places(shape) or [0])[0]])

    def part(
        self, name: str, node: Node, shape: Sequence[int], dim: int, first: int, many: int
    ) -> Node:
        """A slice of a tensor.

        Args:
            name: The operation that asks, for who is refused.
            node: What the tensor is.
            shape: Its shape.
            dim: The dimension that is sliced.
            first: Where the slice begins.
            many: How long it is.

        Raises:
            Untraceable: Of some rows.
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
        """Tensors one after the other along a dimension."""
        pieces = []
        for node, shape in zip(nodes, shapes, strict=True):
            outer, size, inner = self._around(name, shape, dim)
            width = size * inner
            whole = self.graph.spread(node, outer * width)
            pieces.append([self.graph.part(whole, i * width, width) for i in range(outer)])
        return self.graph.cat(*chain.from_iterable(zip(*pieces, strict=True)))

    def reduced(self, name: str, op: str, node: Node, shape: Sequence[int], dim: int) -> Node:
        """A reduction of a tensor along a dimension."""
        outer, size, inner = self._around(name, shape, dim)
        if not node.width:
            raise Untraceable(f"aten.{name} of what is the same for all units")
        graph, width = self.graph, size * inner
        whole = graph.spread(node, outer * width)
        wholes = [graph.part(whole, i * width, width) for i in range(outer)]
        if inner == 1:
            return graph.cat(*(graph.reduce(op, whole) for whole in wholes))
        firsts = range(0, width, inner)
        return graph.cat(
            *(graph.fold(op, [graph.part(w, first, inner) for first in firsts]) for w in wholes)
        )

    def repeated(self, node: Node, shape: Sequence[int], dim: int) -> Node:
        """What was reduced, for all that it was reduced from."""
        outer, size, inner = self._around("expand", shape, dim)
        if outer * inner == 1:  # goes for all units as it is
            return node
        rows = (self.graph.part(node, i * inner, inner) for i in range(outer))
        if inner == 1:
            return self.graph.cat(*(self.graph.spread(row, size) for row in rows))
        return self.graph.cat(*(row for row in rows for _ in range(size)))

    def _around(self, name: str, shape: Sequence[int], dim: int) -> tuple[int, int, int]:
        """How often a dimension comes in a row, its size, and how many units lie inside it."""
        dim %= len(shape)
        before, after = self.count(shape[:dim]), self.count(shape[dim + 1 :])
        if before is None or after is None or dim in self.places(shape):
            raise Untraceable(f"aten.{name} across rows")
        return before, shape[dim], after


def sizes_of(shape: Sequence[int]) -> list[int]:
    """The sizes of dimensions with more than one number in them."""
    return [size for size in shape if size != 1]
