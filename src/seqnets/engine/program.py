"""``Program``: the schedule of a step, as stages of a forward and a backward pass.

A stage computes matrix products and row reductions, then pointwise expressions of one width, and
stores what later stages, other steps or the other pass read. ``schedule.py`` makes programs; the
printers in ``c/`` and ``triton/`` and the loops in ``eager/`` take them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from seqnets.engine.graph import Node
from seqnets.engine.step import Step


@dataclass(frozen=True)
class Buffer:
    """A matrix with one row for each sequence, at one step.

    Attributes:
        kind: "x" (the input), "state" (a part before the step), "value" (a product's operand),
            "reduced" (a reduction's operand), "saved"; and gradients in the backward pass: "dwx",
            "dz" (of a product), "dsum" (of a sum, one contribution per unit that reads it),
            "dcross" (of what later stages read), "carry" (of a state part, to the step before) and
            "unit" (of a pointwise parameter, summed over rows and steps).
        key: Which state part, product, reduction or parameter.
    """

    kind: str
    key: int = 0


@dataclass(frozen=True)
class StageProduct:
    """A product that a stage computes.

    Attributes:
        product: Index among the step's products.
        value: The left operand.
        blocks: Width of the result in multiples of the stage's width.
    """

    product: int
    value: Buffer
    blocks: int


@dataclass(frozen=True)
class Store:
    """A value that a stage writes to memory.

    Attributes:
        buffer: The destination.
        offset: Its first column.
        node: The value; None for the gradient of a state part on which nothing depends: zero.
        add: Whether to accumulate.
    """

    buffer: Buffer
    offset: int
    node: Node | None
    add: bool = False


@dataclass
class Stage:
    """Products and reductions, then pointwise expressions.

    Attributes:
        width: Number of units.
        products: Computed first.
        reductions: Computed first, by index among the step's reductions; in the backward pass,
            those whose gradients are summed here from their "dsum" contributions.
        stores: What the stage writes.
        state: State parts that the stage computes, and their expressions; in the backward pass,
            those whose incoming gradients it reads.
    """

    width: int
    products: list[StageProduct] = field(default_factory=list)
    reductions: list[int] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    state: dict[int, Node] = field(default_factory=dict)

    @property
    def stored(self) -> list[Node]:
        """The values that it writes; in the backward pass, all expressions that it computes."""
        return [store.node for store in self.stores if store.node is not None]


@dataclass(eq=False)
class Program:
    """The schedule of a step's forward and backward pass.

    Attributes:
        step: The traced step.
        forward: Stages, in order.
        backward: Stages, in order.
        saved: Nodes that the forward pass saves at each step, and their first columns; those that
            later stages of the same step read come first.
        crossing: Number of columns of ``saved`` that later stages of the same step read.
        units: Pointwise parameters, as leaves, each with the width of a stage that reads it: loops
            sum their gradients over rows and steps. A single number may be read in several widths.
        shared: Products whose gradient equals that of the projected input.
        biases: Pointwise parameters whose gradient is a column sum of the projected input's, and
            its first column; they are not in ``units``.
        gaps: Gradient buffers with columns that no stage stores.
        befores: State parts whose values before each step the backward pass needs, directly or to
            recompute what it needs, in order: lean memory keeps nothing else.
    """

    step: Step
    forward: list[Stage]
    backward: list[Stage] = field(default_factory=list)
    saved: dict[Node, int] = field(default_factory=dict)
    crossing: int = 0
    units: list[tuple[Node, int]] = field(default_factory=list)
    shared: set[int] = field(default_factory=set)
    biases: dict[Node, int] = field(default_factory=dict)
    gaps: set[Buffer] = field(default_factory=set)
    befores: list[int] = field(default_factory=list)

    def stages(self, name: str) -> list[Stage]:
        """The stages of the pass "forward" or "backward", in order."""
        return self.forward if name == "forward" else self.backward

    @cached_property
    def weight_numbers(self) -> int:
        """Numbers in the weights of the step's products."""
        return sum(each.weight.rows * each.weight.columns for each in self.step.products)

    @cached_property
    def saved_size(self) -> int:
        """Total width of ``saved``."""
        return sum(node.width for node in self.saved)

    @cached_property
    def unit_columns(self) -> dict[tuple[Node, int], int]:
        """The first column of each of ``units`` in one row of sums, by parameter and offset."""
        columns, size = {}, 0
        for leaf, width in sorted(
            self.units, key=lambda unit: (unit[0].what.key, unit[0].what.offset)
        ):
            columns[leaf, width], size = size, size + width
        return columns

    @cached_property
    def unit_size(self) -> int:
        """Total width of ``units``."""
        return sum(width for _, width in self.units)

    @cached_property
    def values(self) -> list[int]:
        """Products whose operand is neither a whole state part nor the input."""
        stores = [store for stage in self.forward for store in stage.stores]
        return [store.buffer.key for store in stores if store.buffer.kind == "value"]

    @cached_property
    def differentiated(self) -> set[int]:
        """Products whose gradient the backward pass computes."""
        stores = [store for stage in self.backward for store in stage.stores]
        return {store.buffer.key for store in stores if store.buffer.kind == "dz"}

    @cached_property
    def learned(self) -> set[int]:
        """Those by a parameter that has a gradient: operand and gradient are kept at each step."""
        return {k for k in self.differentiated if self.step.is_learned(k)}

    @cached_property
    def kept_values(self) -> list[int]:
        """Those of ``values`` whose operand is kept."""
        return [k for k in self.values if k in self.learned]

    @cached_property
    def kept_sizes(self) -> list[int]:
        """Columns of what the forward pass keeps: befores, values and ``saved``, at least 1."""
        befores = [self.step.state_sizes[p] for p in self.befores]
        values = [self.step.products[k].weight.columns for k in self.kept_values]
        return [*befores, *values, max(1, self.saved_size)]

    def crossing_into(self, stage: Stage) -> dict[Node, int]:
        """The crossing nodes that a stage does not store itself, and their first columns."""
        here = {store.node for store in stage.stores if store.buffer.kind == "saved"}
        return {
            node: offset
            for node, offset in self.saved.items()
            if offset < self.crossing and node not in here
        }

    def part_of(self, product: int) -> int | None:
        """The whole state part that is a product's operand; None if it is another value."""
        return self.step.whole_state(self.step.products[product].value)
