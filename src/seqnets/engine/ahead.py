"""What steps compute of their input alone, for all steps at once before them.

A cell may multiply its input inside the step, side by side with its state. A loop would wait for
these products, and for sums over the input, at every step.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import torch
from torch import Tensor

from seqnets.engine.evaluate import numbers, values_of
from seqnets.engine.graph import Columns, Graph, Node, Product, Reduction, Step
from seqnets.engine.linear import read_parts
from seqnets.engine.settling import overlap


@dataclass(frozen=True)
class Ahead:
    """What is computed before the loop.

    Attributes:
        step: The whole step.
        nodes: What the rest of it reads in place of the projected input, side by side.
        rest: The step that is left for the loop.
    """

    step: Step
    nodes: tuple[Node, ...]
    rest: Step

    def of(self, wx: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """What the loop reads, (..., W), of the projected input and the cell's tensors."""
        values = values_of(self.step, wx, {}, numbers(self.step, tensors, wx.dtype))
        shape = wx.shape[:-1]
        return torch.cat([values[node].expand(*shape, node.width) for node in self.nodes], -1)


def computed_ahead(step: Step, constants: Container[str] = ()) -> Ahead | None:
    """What of a step depends on its input alone; None if the projected input says it all.

    That is, no product and no reduction; and no column of it is read in two pieces, whose gradients
    a loop could not tell apart. Units that are repeated stay few as long as they can: the products
    that repeat them are left to the loop.

    Args:
        step: What was traced.
        constants: The names of weights that nobody learns.
    """
    rest = _Rest(step, constants)
    state = tuple(map(rest.of, step.state))
    places = sorted((n.what.offset, n.width) for n in rest.columns if n.what.source == "wx")
    if len(places) == len(rest.columns) and not overlap(places):
        return None
    made = tuple(rest.products.values()), tuple(rest.reductions.values())
    left = Step(rest.graph, *made, state, step.state_sizes, rest.width, step.parameters)
    return Ahead(step, tuple(rest.columns), left.with_used_parameters())


_MANY = 4


class _Rest:
    """A step made anew, in which all that depends on its input alone is input.

    Attributes:
        graph: Where its nodes are.
        columns: What is input now, and in which column it begins.
        width: How many columns there are.
        products: Those that are left, by their place in the whole step.
        reductions: The same.
    """

    def __init__(self, step: Step, constants: Container[str]) -> None:
        self._constants = constants
        self.graph = Graph()
        self.columns: dict[Node, int] = {}
        self.width = 0
        self.products: dict[int, Product] = {}
        self.reductions: dict[int, Reduction] = {}
        self._step = step
        self._made: dict[Node, Node] = {}

    def of(self, node: Node) -> Node:
        """A node of the whole step, made of what is left."""
        if node not in self._made:
            self._made[node] = self._leaf(node) if node.op == "leaf" else self._again(node)
        return self._made[node]

    def _again(self, node: Node) -> Node:
        if node.op == "const":
            return self.graph.const(node.what)
        return self.graph.apply(node.op, *map(self.of, node.args))

    def _leaf(self, leaf: Node) -> Node:
        source, key, offset = leaf.what.source, leaf.what.key, leaf.what.offset
        made = source in ("product", "reduction") and not self._repeats(source, key)
        if source == "wx" or (made and not read_parts(self._step, [leaf])):
            if leaf not in self.columns:
                self.columns[leaf] = self.width
                self.width += leaf.width
            return self.graph.leaf(Columns("wx", None, self.columns[leaf]), leaf.width)
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
        """Whether it is a product that makes many units of few."""
        if source != "product":
            return False
        weight = self._step.products[key].weight
        return weight.name in self._constants and weight.rows >= _MANY * weight.columns
