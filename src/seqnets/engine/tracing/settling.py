"""Lowering of a recorded step to what loops compute: leaves and pointwise nodes of one width.

Recording leaves concatenations ("cat"), broadcasts ("spread") and reductions ("sum", "max") in the
graph. Here they become products and reductions of the step, which are the only ways in which a unit
of a loop reads other units.

A node is lowered in one of two ways, after its operands: ``settled`` for units that each read their
own number of it, ``_across`` for units that all read the same one. A broadcast changes from the
first way to the second; a reduction's operand, and what must be computed once for all units, back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from seqnets.engine.graph import (
    COMPARISONS,
    REDUCTIONS,
    Columns,
    Graph,
    Node,
    Place,
    common_width,
    cuts_of,
    places_read,
    walk,
    walk_down_to,
    whole_of,
)
from seqnets.engine.step import Product, Reduction, Weight

_MOST_PIECES = 16
"""The most pieces of one product: kernels in Triton cut tiles into so many, and more would not fit
into a processor's registers."""
_MOST_PARTS = 64  # a loop's text grows with their number, and so does the time to compile it


def pieces_written(
    graph: Graph, written: Sequence[Node], others: Sequence[Node]
) -> list[list[Node]]:
    """What a step writes to each state part: one node, or one for each of its equal pieces.

    A part is cut if what the step writes is joined from such pieces, and all that it reads of the
    part are pieces too. The output, the first part, is not.

    Args:
        graph: The graph that owns the nodes.
        written: What the step writes to each part.
        others: What else it computes: the operands of its products.
    """
    found = [[node] for node in written]
    for part, node in enumerate(written):
        if part and node.op == "cat":
            numbers = (number for place in _read(part, found, others) for number in place)
            width = math.gcd(node.width, *numbers)
            if node.width <= _MOST_PARTS * width:
                pieces = [graph.part(node, at, width) for at in range(0, node.width, width)]
                tried = [*found[:part], pieces, *found[part + 1 :]]
                alike = {size for _, size in _read(part, tried, others)} == {width}
                if alike and not any(piece.op == "cat" for piece in pieces):
                    found = tried
    return found


def _read(part: int, written: Sequence[Sequence[Node]], others: Sequence[Node]) -> list[Place]:
    """The pieces of a state part that are read."""
    return places_read(walk([*chain(*written), *others])).get(("state", part), [])


class Settler:
    """Rewrites nodes until only leaves and pointwise nodes remain.

    Args:
        graph: The graph that owns the nodes.
        products: The products as recorded.
        roots: The nodes that will be lowered: for each state part one, or one for each piece.
        widths: Width of each state part, or of each of its pieces; loops read these whole.
        identity: The identity matrix of a size, whose rows select units.

    Attributes:
        products: The lowered products, in an order in which they can be computed.
        reductions: The reductions, in such an order.
    """

    def __init__(
        self,
        graph: Graph,
        products: Sequence[Product],
        roots: Sequence[Sequence[Node]],
        widths: Sequence[int],
        identity: Callable[[int], Weight],
    ) -> None:
        self.graph = graph
        self.products: list[Product] = []
        self.reductions: list[Reduction] = []
        self._written = products
        self._identity = identity
        firsts = [sum(map(len, roots[:part])) for part in range(len(roots))]  # among the step's
        self._state = list(zip(firsts, widths, strict=True))
        self._settled: dict[Node, Node] = {}
        self._spread: dict[tuple[Node, int], Node] = {}
        everything = [*chain(*roots), *(product.value for product in products)]
        self._read = places_read(walk(everything))
        self._read_alone = places_read(walk_down_to(REDUCTIONS, everything))

    def settled(self, node: Node) -> Node:
        """The lowered form of a node that is not a concatenation."""
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
        source, key = whole_of(leaf)
        if source == "product":
            return self._product(leaf, self._written[key])
        if source != "state":
            return leaf
        first, width = self._state[key]
        if leaf.width == width:
            part = first + (leaf.what.offset // width if width else 0)
            return self.graph.leaf(Columns("state", part), width)
        whole = self.graph.leaf(Columns("state", key), width)
        return self._product(leaf, Product(whole, self._identity(width)))

    def _product(self, leaf: Node, written: Product) -> Node:
        """Columns of a product: split off as a product of their own if others differ in width.

        Leaves that only reductions read are cut to fit, and do not count. A product of very many
        pieces is split into several, each as wide as is read of it.
        """
        offset, width = leaf.what.offset, leaf.width
        places = self._read_alone.get(whole_of(leaf)) or self._read[whole_of(leaf)]
        weight, grain = written.weight, common_width(places)
        if grain != width or offset % width or weight.rows % width:
            weight, offset = weight.part(0, offset, width), 0
        elif weight.rows > (most := _MOST_PIECES * width):
            read = {offset, *(at for at, _ in places if at % width == 0)}
            near = [at for at in read if at // most == offset // most]
            weight = weight.part(0, min(near), max(near) + width - min(near))
            offset -= min(near)
        place = _place(Product(self.settled(written.value), weight), self.products)
        return self.graph.leaf(Columns("product", place, offset), width)

    def _across(self, node: Node, width: int) -> Node:
        """A node of width 1 or 0, lowered for ``width`` units that read it."""
        if (node, width) not in self._spread:
            self._spread[node, width] = self._lowered_across(node, width)
        return self._spread[node, width]

    def _lowered_across(self, node: Node, width: int) -> Node:
        if node.op in REDUCTIONS:
            pieces = map(self.settled, self._pieces(node.args[0]))
            return self._reduced(self.graph.fold(node.op, list(pieces)), node.op, width)
        if width == 1 or not node.width:
            return self.settled(node)
        if _is_of_reductions(node):  # cheaper to recompute in each unit than to exchange
            return self.graph.apply(node.op, *(self._across(arg, width) for arg in node.args))
        if node.op in COMPARISONS:  # sums need numbers
            zero, one = map(self.graph.const, (0, 1))
            number = self.graph.apply("where", self.settled(node), one, zero)
            return self.graph.apply("ne", self._reduced(number, "sum", width), zero)
        return self._reduced(self.settled(node), "sum", width)

    def _reduced(self, value: Node, op: str, width: int) -> Node:
        if value.width == width == 1:
            return value if op == "sum" else self.graph.apply("detach", value)
        place = _place(Reduction(value, op, width), self.reductions)
        return self.graph.leaf(Columns("reduction", place), width)

    def _pieces(self, value: Node) -> Sequence[Node]:
        """Cut a reduction's operand where other reads of its leaves would overlap with it."""
        grain = math.gcd(value.width, *cuts_of(value, self._read))
        firsts = range(0, value.width, grain)
        return [self.graph.part(value, first, grain) for first in firsts]


def _place(item: Any, items: list[Any]) -> int:
    """The index of an item in a list, appended if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)


def _is_of_reductions(node: Node) -> bool:
    """Whether a value of width 1 depends on reductions and scalars alone."""
    inside = walk_down_to(REDUCTIONS, [node])
    return not any(n.width and n.op in ("leaf", "spread") for n in inside)
