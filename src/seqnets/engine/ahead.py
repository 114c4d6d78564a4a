"""Hoisting of what depends on the input alone: one call of torch for all steps, before the loop.

A cell may multiply ``[x, h]`` inside its step. The input's products and reductions leave the loop,
which then reads their results in place of the projected input. They have a row for each step, and
are nodes of the traced step; ``preparation.py`` hoists what depends on parameters alone, which is
the same at all steps and may be any operation of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from seqnets.engine.evaluate import parameters_of, values_of
from seqnets.engine.graph import (
    COMPARISONS,
    JUMPS,
    Columns,
    Graph,
    Node,
    Place,
    overlap,
    places_read,
    walk,
)
from seqnets.engine.linear import read_parts
from seqnets.engine.step import Product, Reduction, Step


@dataclass(frozen=True)
class Ahead:
    """A traced step, split into what is computed before the loop and the rest.

    Attributes:
        step: The whole step.
        nodes: The hoisted nodes, which concatenated replace the projected input.
        rest: The step that remains for the loop.
    """

    step: Step
    nodes: tuple[Node, ...]
    rest: Step

    def of(self, wx: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """The input of ``rest``, (..., W), from the projected input and the cell's tensors."""
        values = values_of(self.step, wx, {}, parameters_of(self.step, tensors, wx.dtype))
        shape = wx.shape[:-1]
        return torch.cat([values[node].expand(*shape, node.width) for node in self.nodes], -1)


def computed_ahead(step: Step) -> Ahead | None:
    """Hoist what depends on the input alone; None if there is nothing to hoist.

    That is, no product or reduction of the input, and no overlapping leaves, whose gradients a loop
    could not store. Products that only widen their operand by a constant stay in the loop, so that
    the input stays narrow.
    """
    rest = _Rest(step)
    state = tuple(map(rest.of, step.state))
    places = sorted((n.what.offset, n.width) for n in rest.columns if n.source == "wx")
    if len(places) == len(rest.columns) and not overlap(places):
        return None
    made = tuple(rest.products.values()), tuple(rest.reductions.values())
    kinds = step.parameters, step.constants
    left = Step(rest.graph, *made, state, step.state_sizes, rest.width, *kinds)
    return Ahead(step, tuple(rest.columns), left.with_used_parameters())


def with_pieces_apart(step: Step) -> tuple[Step, list[Place]]:
    """A step in one piece, for compilers, where pieces of the projected input do not overlap.

    Returns:
        The step, and the pieces that side by side are its input; none if that is as it was.
    """
    pieces = places_read(walk(step.roots)).get(("wx", None), [])
    if not overlap(pieces):
        return step, []
    firsts = dict(zip(pieces, accumulate((width for _, width in pieces), initial=0), strict=False))
    made: dict[Node, Node] = {}
    for node in walk(step.roots):
        made[node] = step.graph.rebuilt(node, made)
        if node.source == "wx":
            here = replace(node.what, offset=firsts[node.what.offset, node.width])
            made[node] = step.graph.leaf(here, node.width)
    return replace(
        step,
        products=tuple(replace(each, value=made[each.value]) for each in step.products),
        reductions=tuple(replace(each, value=made[each.value]) for each in step.reductions),
        state=tuple(made[node] for node in step.state),
        wx_size=sum(width for _, width in pieces),
    ), pieces


_MANY = 4  # times as many units as are read: a product that only widens


class _Rest:
    """Rebuilds a step, turning hoisted nodes into leaves.

    Attributes:
        graph: The new graph.
        columns: Hoisted nodes of the whole step, and their first columns.
        width: Total number of these columns.
        products: The remaining products, by index in the whole step.
        reductions: The remaining reductions, by index in the whole step.
    """

    def __init__(self, step: Step) -> None:
        self.graph = Graph()
        self.columns: dict[Node, int] = {}
        self.width = 0
        self.products: dict[int, Product] = {}
        self.reductions: dict[int, Reduction] = {}
        self._step = step
        self._made: dict[Node, Node] = {}
        self._compared = self._compared_with_their_largest()

    def of(self, node: Node) -> Node:
        """A node of the whole step, rebuilt in the new graph."""
        if node not in self._made:
            self._made[node] = self._leaf(node) if node.op == "leaf" else self._again(node)
        return self._made[node]

    def _compared_with_their_largest(self) -> set[Node]:
        """What jumps compare with a hoisted maximum of it: a loop's functions round otherwise."""
        found: set[Node] = set()
        largest = {k: r.value for k, r in enumerate(self._step.reductions) if r.op == "max"}
        for jump in (node for node in walk(self._step.roots) if largest and node.op in JUMPS):
            inside = walk([jump])
            read = {node.what.key for node in inside if node.source == "reduction"}
            operands = [largest[key] for key in read & largest.keys()]
            hoisted = [value for value in operands if not read_parts(self._step, [value])]
            found |= {node for node in walk(hoisted) if _is_column(node)}.intersection(inside)
        return found

    def _column(self, node: Node) -> Node:
        """The leaf that reads a hoisted node."""
        if node not in self.columns:
            self.columns[node] = self.width
            self.width += node.width
        return self.graph.leaf(Columns("wx", None, self.columns[node]), node.width)

    def _again(self, node: Node) -> Node:
        if node.op == "const":
            return self.graph.const(node.what)
        if node in self._compared:
            return self._column(node)
        return self.graph.apply(node.op, *map(self.of, node.args))

    def _leaf(self, leaf: Node) -> Node:
        source, key, offset = leaf.what.source, leaf.what.key, leaf.what.offset
        made = source in ("product", "reduction") and not self._repeats(source, key)
        if source == "wx" or (made and not read_parts(self._step, [leaf])):
            return self._column(leaf)
        if source == "product":
            product = self._step.products[key]
            self.products.setdefault(key, Product(self.of(product.value), product.weight))
            key = list(self.products).index(key)
        if source == "reduction":
            reduction = self._step.reductions[key]
            value = self.of(reduction.value)
            self.reductions.setdefault(key, Reduction(value, reduction.op, reduction.width))
            key = list(self.reductions).index(key)
        return self.graph.leaf(Columns(source, key, offset), leaf.width)

    def _repeats(self, source: str, key: int) -> bool:
        """Whether it is a product by a constant that makes many units of few."""
        if source != "product":
            return False
        weight = self._step.products[key].weight
        return not self._step.is_learned(key) and weight.rows >= _MANY * weight.columns


def _is_column(node: Node) -> bool:
    """Whether a node is computed, and numbers of each unit: neither truths nor one for all rows."""
    return bool(node.args and node.width) and node.op not in COMPARISONS
