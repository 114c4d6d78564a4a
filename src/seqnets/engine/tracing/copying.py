"""Comparisons of units with themselves: what such a comparison reads of them becomes copies.

A unit is read as it is, or moved by a product with ones and zeros, which a GPU may round. Columns
of a product may be products of their own, which sum in another order, and torch's functions round
otherwise at the end of a row than within it. So a unit that is read in two ways may be two numbers,
and not equal itself. Copies are made in one way, of what was computed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from itertools import chain
from typing import Any

from seqnets.engine.graph import (
    COMPARISONS,
    JUMPS,
    REDUCTIONS,
    Columns,
    Node,
    Place,
    common_width,
    cuts_of,
    overlap,
    places_read,
    reached_among,
    walk,
    walk_down_to,
    whole_of,
)
from seqnets.engine.step import Product
from seqnets.engine.tracing.placing import Placing

_PASSING = {"add", "sub", "neg", "mul", "abs", "where", "cat", "spread", "detach"}
"""Operations by which the number that is compared may be a difference."""


def with_copies_compared(recorder: Placing, written: Sequence[Node]) -> list[Node]:
    """What a step writes, where comparisons of units with themselves read copies of them.

    Args:
        recorder: What has recorded the step; the operands of its products change likewise.
        written: What the step writes to each state part.
    """
    roots = [*written, *(product.value for product in recorder.products)]
    if not any(node.op in JUMPS for node in walk(roots)):
        return list(written)
    copying = _Copying(recorder, roots)
    for k, product in enumerate([*recorder.products]):
        recorder.products[k] = Product(copying.of(product.value), product.weight)
    return list(map(copying.of, written))


class _Copying:
    """Rewrites the nodes of a step.

    A comparison reads a unit in two ways if it reads pieces that overlap, of a matrix (``_apart``)
    or of a node (``_firsts``), or units that were moved and what they were moved from (``_moves``).

    Args:
        recorder: What has recorded it.
        roots: What it computes.
    """

    def __init__(self, recorder: Placing, roots: Sequence[Node]) -> None:
        self._recorder, self._graph = recorder, recorder.graph
        self._made: dict[Node, Node] = {}
        nodes = walk(roots)
        self._read = places_read(nodes)
        self._read_alone = places_read(walk_down_to(REDUCTIONS, roots))
        self._moves = {
            k: product.value
            for k, product in enumerate(recorder.products)
            if recorder.moves_units(product.weight)
        }
        self._apart = {whole for whole in self._read if self._is_read_apart(*whole)}
        self._firsts: dict[Node, dict[Node, int]] = defaultdict(dict)  # in what each is a piece of
        for (whole, first, _), piece in self._graph.parts.items():
            self._firsts[piece][whole], self._firsts[whole][whole] = first, 0

    def _is_read_apart(self, source: str, key: Any) -> bool:
        """Whether columns of a matrix that overlap are read in two ways, or may be."""
        if source != "product" or key in self._moves:
            return source == "state"
        places = self._read[source, key]
        grain = common_width(self._read_alone.get((source, key)) or places)
        ends = chain(*places, [self._recorder.products[key].weight.rows])
        return overlap(places) and not (grain and all(end % grain == 0 for end in ends))

    def of(self, node: Node) -> Node:
        """A node, with comparisons rewritten."""
        for each in walk([node], self._made):
            made = self._compared(each) if each.op in JUMPS else self._made
            self._made[each] = self._graph.rebuilt(each, made)
        return self._made[node]

    def _compared(self, jump: Node) -> dict[Node, Node]:
        """What is made of all below a comparison, where that reads copies."""
        inside = _compared_in(jump)
        if not (copies := self._copies(inside)):
            return self._made
        made = self._made | copies
        for node in walk(jump.args, copies):
            if node in inside:
                made[node] = self._graph.rebuilt(node, made)
        return made

    def _copies(self, inside: Sequence[Node]) -> dict[Node, Node]:
        """Copies of what a comparison reads in two ways, by what it reads."""
        moved = self._moved(inside)
        twice = moved | self._cut_to_reduce(inside)
        copies: dict[Node, Node] = {}
        for whole, reads in self._reads([*inside, *moved.difference(inside)], twice).items():
            places = sorted(reads.values())
            for node, (first, width) in reads.items():
                begin, size = _run(places, first)
                there = [other for other, (at, _) in reads.items() if begin <= at < begin + size]
                if node in inside and (len(there) > 1 or not twice.isdisjoint(there)):
                    weight = self._recorder.identity(size).part(0, first - begin, width)
                    original = self.of(self._part(whole, begin, size))
                    copies[node] = self._recorder.times_piece(original, weight)
        return copies

    def _moved(self, inside: Sequence[Node]) -> set[Node]:
        """What the units among some nodes were moved from."""
        found: set[Node] = set()
        ahead = [node for node in inside if node.op == "leaf"]
        while ahead:
            node = ahead.pop()
            if node.source == "product" and node.what.key in self._moves:
                node = self._moves[node.what.key]
                found.add(node)
                ahead.append(node)
            elif node.op == "add":  # joined of parts that have been moved
                ahead += node.args
        return found

    def _cut_to_reduce(self, inside: Sequence[Node]) -> set[Node]:
        """What a reduction among some nodes reads, so that it will be cut, and others too."""
        operands, others = (
            {arg for node in inside if (node.op in REDUCTIONS) == are for arg in node.args}
            for are in (True, False)
        )
        return {node for node in operands & others if cuts_of(node, self._read)}

    def _reads(self, inside: Sequence[Node], twice: Set[Node]) -> dict[Any, dict[Node, Place]]:
        """What some nodes read in pieces, a matrix or a node, and where each piece of it is."""
        apart = self._apart | {whole_of(node) for node in twice if node.op == "leaf"}
        reads: dict[Any, dict[Node, Place]] = defaultdict(dict)
        for node in inside:
            if node.op == "leaf" and whole_of(node) in apart:
                reads[whole_of(node)][node] = node.what.offset, node.width
            elif node.op not in COMPARISONS and node.width and node.op != "leaf":
                wholes = self._firsts.get(node) or ({node: 0} if node in twice else {})
                for whole, first in wholes.items():
                    reads[whole][node] = first, node.width
        return reads

    def _part(self, whole: Any, first: int, size: int) -> Node:
        """Columns of a matrix, or units of a node."""
        if isinstance(whole, Node):
            return self._graph.part(whole, first, size)
        source, key = whole
        return self._graph.leaf(Columns(source, key, first), size)


def _compared_in(jump: Node) -> list[Node]:
    """A comparison and what its sides are made of.

    What is compared with one number for all rows may be a difference, of two sides too.
    """
    if sides := _sides_of(jump):
        return sides
    inside = walk([jump], (), lambda n: n.args if n is jump or n.op in _PASSING else ())
    found = dict.fromkeys(inside)
    for node in inside:
        if node.op == "sub":
            found |= dict.fromkeys(_sides_of(node))
    return [*found]


def _sides_of(node: Node) -> list[Node]:
    """A node and what its two sides are made of, down to what both have in common.

    Empty if it has one side, or one of them is the same for all rows.
    """
    first, *others = (walk([arg]) for arg in node.args)
    if not others or not all(map(_has_rows, (first, *others))):
        return []
    second = {*others[0]}
    common = {each: None for each in first if each in second}
    return [*reached_among(common, node.args), *walk([node], common)]


def _has_rows(nodes: Sequence[Node]) -> bool:
    """Whether some nodes are not the same for all rows."""
    return any(node.source not in (None, "parameter") for node in nodes)


def _run(places: Sequence[Place], column: int) -> Place:
    """The columns of the sorted pieces that overlap one after another around a column."""
    first = end = 0
    for at, width in places:
        if at >= end > column:
            break
        first = at if at >= end else first
        end = max(end, at + width)
    return first, end - first
