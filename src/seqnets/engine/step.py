"""The intermediate representation of one step: expressions, and products and reductions of them.

``tracing`` builds it and ``schedule.py`` schedules it. Nothing here depends on device, batch size
or number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from seqnets.engine.graph import Graph, Node, walk


@dataclass(frozen=True)
class Weight:
    """A block of a matrix parameter: (rows, columns).

    Attributes:
        name: The parameter's name.
        offset: First row.
        rows: Number of rows.
        columns: Number of columns.
        first: First column.
        turned: Whether it is a block of the transposed parameter.
    """

    name: str
    offset: int
    rows: int
    columns: int
    first: int = 0
    turned: bool = False

    def of(self, parameter: Tensor) -> Tensor:
        """The block of a parameter, or of its gradient, as a view."""
        matrix = parameter.T if self.turned else parameter
        ends = self.offset + self.rows, self.first + self.columns
        return matrix[self.offset : ends[0], self.first : ends[1]]

    def covers(self, shape: Sequence[int]) -> bool:
        """Whether the block is a whole parameter of this shape."""
        here = self.transposed if self.turned else self
        return (here.offset, here.rows, here.first, here.columns) == (0, shape[0], 0, shape[1])

    @property
    def transposed(self) -> Weight:
        """The transposed block."""
        return Weight(
            self.name,
            offset=self.first,
            rows=self.columns,
            columns=self.rows,
            first=self.offset,
            turned=not self.turned,
        )

    def part(self, dim: int, offset: int, size: int) -> Weight:
        """A slice of its rows (``dim`` 0) or columns (1)."""
        if dim:
            return self.transposed.part(0, offset, size).transposed
        return replace(self, offset=self.offset + offset, rows=size)


@dataclass(frozen=True)
class Product:
    """``value @ weight.T``, (B, rows).

    Attributes:
        value: The left operand, as wide as the weight has columns.
        weight: The right operand, transposed.
    """

    value: Node
    weight: Weight


@dataclass(frozen=True)
class Reduction:
    """A reduction over the units of each row.

    Attributes:
        value: The operand.
        op: "sum", or "max", which has no gradient.
        width: Number of units that read the result.
    """

    value: Node
    op: str
    width: int


@dataclass(frozen=True)
class Step:
    """A traced step.

    Attributes:
        graph: The graph that owns the nodes.
        products: In an order in which they can be computed.
        reductions: In an order in which they can be computed.
        state: The state after the step, in the cell's order.
        state_sizes: Width of each state part.
        wx_size: Columns of the projected input; of the raw input, where the step includes the
            projection.
        parameters: Names and shapes of the parameters that the step uses.
        constants: Names of those that are the same for all cells of this equation, as of ones and
            zeros: nobody learns them.
        parts_read: The state parts that products and reductions read, by source and index, as far
            as ``linear.read_parts`` has looked them up.
    """

    graph: Graph
    products: tuple[Product, ...]
    reductions: tuple[Reduction, ...]
    state: tuple[Node, ...]
    state_sizes: tuple[int, ...]
    wx_size: int
    parameters: dict[str, tuple[int, ...]]
    constants: frozenset[str] = frozenset()
    parts_read: dict[tuple[str, int], set[int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def roots(self) -> list[Node]:
        """The nodes that must be computed: new state, and operands of products and reductions."""
        products = (product.value for product in self.products)
        return [*self.state, *products, *(reduction.value for reduction in self.reductions)]

    def whole_state(self, node: Node) -> int | None:
        """The state part, always whole, that a node is before the step; None if it is none."""
        return node.what.key if node.source == "state" else None

    def is_learned(self, product: int) -> bool:
        """Whether a product is by a parameter, rather than by a constant."""
        return self.products[product].weight.name not in self.constants

    def with_used_parameters(self) -> Step:
        """The same step without unused parameters."""
        used = {node.what.key for node in walk(self.roots) if node.source == "parameter"}
        used |= {product.weight.name for product in self.products}
        shapes = {name: shape for name, shape in self.parameters.items() if name in used}
        return replace(self, parameters=shapes, constants=self.constants & shapes.keys())
