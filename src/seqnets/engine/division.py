"""The division of a step into stages: which stage computes each node, and which stores it."""

from __future__ import annotations

from collections.abc import Sequence

from seqnets.engine.graph import Node, Untraceable, overlap, places_read, walk
from seqnets.engine.step import Step


class Division:
    """The stages of a step. A node is computed in one, and stored in one that has its width.

    Attributes:
        step: The step.
        parts: Of each product, the whole state part that is its operand; None for another value.
        values: Operands that a stage computes, by product: neither a whole state part nor the
            input.
        widths: Number of units of each stage.
        crossing: Nodes that a later stage reads.

    Raises:
        Untraceable: Pieces of a product overlap, or do not fit the stage that computes it.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._of_node: dict[Node, int] = {}  # the stage that computes each
        self._of_product: dict[int, int] = {}  # likewise
        self._taken: dict[int, int] = {}  # the width of each stage that has one already
        operands = [product.value for product in step.products]
        self.parts = [step.whole_state(operand) for operand in operands]
        self.values = {
            k: operand
            for k, operand in enumerate(operands)
            if self.parts[k] is None and not self._is_input(operand)
        }
        reduced = [reduction.value for reduction in step.reductions]
        self._roots = [*step.state, *self.values.values(), *reduced]
        _refuse_overlaps(self._roots)
        states = map(self.state_in, range(len(step.state)))
        last = max(*states, *map(self.stored_in, self._roots))
        self.crossing = self._read_later()
        self.widths = [self._taken[n] for n in range(last + 1)]
        self._refuse_misfits()

    def computed_in(self, node: Node) -> int:
        """The stage that computes a node: the first of its width with all operands available."""
        if node not in self._of_node:
            found = max(map(self.computed_in, node.args), default=0)
            if node.source == "product":
                found = self._product_of_width(node.what.key, node.width)
            elif node.source == "reduction":
                found = self.reduction_in(node.what.key)
            elif node.op != "leaf" and node.width:
                found = self._of_width(node.width, found)
            self._of_node[node] = found
        return self._of_node[node]

    def stored_in(self, node: Node) -> int:
        """The stage that stores a node: also for leaves, one of the node's width."""
        stage = self.computed_in(node)
        return self._of_width(node.width, stage) if node.width else stage

    def state_in(self, p: int) -> int:
        """The stage that stores a state part, which may be a constant, of no width of its own."""
        return self._of_width(self.step.state_sizes[p], self.computed_in(self.step.state[p]))

    def product_in(self, k: int) -> int:
        """The stage that computes a product."""
        return self._of_product.get(k, self._earliest(k))

    def reduction_in(self, k: int) -> int:
        """The stage that computes a reduction."""
        reduction = self.step.reductions[k]
        return self._of_width(reduction.width, self.stored_in(reduction.value) + 1)

    def _product_of_width(self, k: int, width: int) -> int:
        """The stage of a product that is read in pieces of a width."""
        if k not in self._of_product:
            self._of_product[k] = self._of_width(width, self._earliest(k))
        return self._of_product[k]

    def _earliest(self, k: int) -> int:
        """The first stage that has a product's operand."""
        return self.stored_in(self.values[k]) + 1 if k in self.values else 0

    def _of_width(self, width: int, first: int) -> int:
        """The first stage from ``first`` on whose width matches or is still free."""
        while self._taken.setdefault(first, width) != width:
            first += 1
        return first

    def _is_input(self, node: Node) -> bool:
        """Whether a node is the whole input, in a step that includes the projection."""
        return node.source == "x" and node.width == self.step.wx_size

    def _read_later(self) -> list[Node]:
        """Nodes that a later stage reads."""
        found: dict[Node, None] = {}
        for node in walk(self._roots):
            for arg in node.args:
                later = self.computed_in(arg) < self.computed_in(node)
                if later and _is_computed(arg) and arg.width:
                    found[arg] = None
        return list(found)

    def _refuse_misfits(self) -> None:
        """Raise if a product is not as wide as some units, or read across them."""
        for leaf in (node for node in walk(self._roots) if node.source == "product"):
            width = self.widths[self.computed_in(leaf)]
            rows = self.step.products[leaf.what.key].weight.rows
            if rows % width or leaf.what.offset % width:
                raise Untraceable(f"a part of a product {rows} wide for {width} units")


def _refuse_overlaps(roots: Sequence[Node]) -> None:
    """Raise if leaves overlap, so that a column's gradient would be split between two stores."""
    for (source, _), places in places_read(walk(roots)).items():
        if source in ("wx", "product") and overlap(places):
            raise Untraceable("pieces of a product that overlap")


def _is_computed(node: Node) -> bool:
    return node.source in ("product", "reduction") or node.op not in ("leaf", "const")
