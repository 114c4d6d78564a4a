"""From what a step was written down as to what loops compute: products, reductions, expressions.

While a step is recorded, one number of a row goes for any number of units, and pieces lie side by
side. A loop computes units of one width at a time, and reads what was made of other units as a
product or a reduction of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from seqnets.engine.graph import (
    COMPARISONS,
    REDUCTIONS,
    Columns,
    Graph,
    Node,
    Product,
    Reduction,
    Weight,
    walk,
)

_Place = tuple[int, int]
"""The first column of a piece, and its width."""


class Settler:
    """Rewrites nodes until nothing is left but leaves, and expressions for one unit.

    Args:
        graph: Where they were made.
        products: What was multiplied, as it was written down.
        roots: What will be asked for.
        state_sizes: Width of each part of the state, which loops read whole.
        identity: The matrix of so many units that changes nothing; its rows pick units.

    Attributes:
        products: What of that is read, in an order in which it can be computed.
        reductions: What is reduced, in such an order.
    """

    def __init__(
        self,
        graph: Graph,
        products: Sequence[Product],
        roots: Sequence[Node],
        state_sizes: Sequence[int],
        identity: Callable[[int], Weight],
    ) -> None:
        self.graph = graph
        self.products: list[Product] = []
        self.reductions: list[Reduction] = []
        self._written = products
        self._state_sizes, self._identity = state_sizes, identity
        self._settled: dict[Node, Node] = {}
        self._spread: dict[tuple[Node, int], Node] = {}
        everything = [*roots, *(product.value for product in products)]
        self._read = _places(walk(everything))
        self._read_alone = _places(walk(everything, _Those(REDUCTIONS)))

    def settled(self, node: Node) -> Node:
        """A node that is not put together of pieces, as loops compute it."""
        if node not in self._settled:
            self._settled[node] = self._rewritten(node)
        return self._settled[node]

    def _rewritten(self, node: Node) -> Node:
        if node.op == "const":
            return node
        if node.op == "leaf":
            return self._leaf(node)
        if node.op == "spread":
            return self._across(node.args[0], node.width)
        if node.op in REDUCTIONS:
            return self._across(node, 1)
        return self.graph.apply(node.op, *map(self.settled, node.args))

    def _leaf(self, leaf: Node) -> Node:
        source, key = leaf.what.source, leaf.what.key
        if source == "product":
            return self._product(leaf, self._written[key])
        if source == "state" and leaf.width != (size := self._state_sizes[key]):
            whole = self.graph.leaf(Columns("state", key), size)
            return self._product(leaf, Product(whole, self._identity(size)))
        return leaf

    def _product(self, leaf: Node, written: Product) -> Node:
        """Columns of a product: of one of their own, if others that are read are not as wide.

        What is read in reductions alone is cut, and does not count.
        """
        offset, width = leaf.what.offset, leaf.width
        places = self._read_alone.get(_whole(leaf)) or self._read[_whole(leaf)]
        weight, grain = written.weight, _width(places)
        if grain != width or offset % width or weight.rows % width:
            weight, offset = weight.part(0, offset, width), 0
        place = _place(Product(self.settled(written.value), weight), self.products)
        return self.graph.leaf(Columns("product", place, offset), width)

    def _across(self, node: Node, width: int) -> Node:
        """One number of a row, or one for all, as that of so many units."""
        if (node, width) not in self._spread:
            self._spread[node, width] = self._made_across(node, width)
        return self._spread[node, width]

    def _made_across(self, node: Node, width: int) -> Node:
        if node.op in REDUCTIONS:
            pieces = map(self.settled, self._pieces(node.args[0]))
            return self._reduced(self.graph.fold(node.op, list(pieces)), node.op, width)
        if width == 1 or not node.width:
            return self.settled(node)
        if _is_of_reductions(node):  # computed once a unit, which is faster than to wait for it
            return self.graph.apply(node.op, *(self._across(arg, width) for arg in node.args))
        if node.op in COMPARISONS:  # sums are of numbers
            zero, one = map(self.graph.const, (0, 1))
            number = self.graph.apply("where", self.settled(node), one, zero)
            return self.graph.apply("ne", self._reduced(number, "sum", width), zero)
        return self._reduced(self.settled(node), "sum", width)

    def _reduced(self, value: Node, op: str, width: int) -> Node:
        if value.width == width == 1:
            return value
        place = _place(Reduction(value, op, width), self.reductions)
        return self.graph.leaf(Columns("reduction", place), width)

    def _pieces(self, value: Node) -> Sequence[Node]:
        """Pieces as wide as what else is read of the same leaves."""
        nodes = walk([value], _Those({"spread"}))
        read = (self._read[_whole(leaf)] for leaf in nodes if leaf.op == "leaf")
        cuts = (cut for places in read if overlap(places) for place in places for cut in place)
        grain = math.gcd(value.width, *cuts)
        firsts = range(0, value.width, grain)
        return [self.graph.part(value, first, grain) for first in firsts]


def _place(item: Any, items: list[Any]) -> int:
    """Where an item stands in a list, in which it is put if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)


def _is_of_reductions(node: Node) -> bool:
    """Whether the one number of a row is made of reductions, and of what is the same for all."""
    inside = walk([node], _Those(REDUCTIONS))
    return not any(n.width and n.op in ("leaf", "spread") for n in inside)


def _whole(leaf: Node) -> tuple[str, Any]:
    return leaf.what.source, leaf.what.key


class _Those:
    """All nodes of some operations, beyond which nothing is walked to."""

    def __init__(self, ops: set[str]) -> None:
        self._ops = ops

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and node.op in self._ops


def _places(nodes: Sequence[Node]) -> dict[tuple[str, Any], list[_Place]]:
    """The pieces of each matrix that are among some nodes, in their order."""
    read: dict[tuple[str, Any], set[_Place]] = {}
    for leaf in (node for node in nodes if node.op == "leaf"):
        read.setdefault(_whole(leaf), set()).add((leaf.what.offset, leaf.width))
    return {whole: sorted(places) for whole, places in read.items()}


def overlap(places: Sequence[_Place]) -> bool:
    """Whether two of some pieces, in their order, share columns."""
    return any(first + width > after for (first, width), (after, _) in pairwise(places))


def _width(places: Sequence[_Place]) -> int:
    """How wide pieces are that lie beside each other; 0 if they do not, or are not alike."""
    widths = {width for _, width in places}
    return widths.pop() if len(widths) == 1 and not overlap(places) else 0
