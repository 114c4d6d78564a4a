"""Scheduling: from a traced ``Step`` to a ``Program``, the stages of its two passes over one step.

A stage computes matrix products and row reductions, then pointwise expressions of one width, and
stores what later stages, other steps or the other pass read. The printers in ``c/`` and ``triton/``
and the loops in ``eager.py`` take programs; nothing here depends on a target.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from seqnets.engine.graph import Node, Product, Step, Untraceable, walk
from seqnets.engine.trace import derive


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
        units: Pointwise parameters, as leaves, each with its stage's width: loops sum their
            gradients over rows and steps.
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
    units: dict[Node, int] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    biases: dict[Node, int] = field(default_factory=dict)
    gaps: set[Buffer] = field(default_factory=set)
    befores: list[int] = field(default_factory=list)

    @cached_property
    def saved_size(self) -> int:
        """Total width of ``saved``."""
        return sum(node.width for node in self.saved)

    @cached_property
    def unit_columns(self) -> dict[Node, int]:
        """The first column of each of ``units`` in one row of sums, by parameter and offset."""
        columns, size = {}, 0
        for leaf in sorted(self.units, key=lambda leaf: (leaf.what.key, leaf.what.offset)):
            columns[leaf], size = size, size + self.units[leaf]
        return columns

    @cached_property
    def unit_size(self) -> int:
        """Total width of ``units``."""
        return sum(self.units.values())

    @cached_property
    def values(self) -> list[int]:
        """Products whose operand is neither a whole state part nor the input."""
        stores = [store for stage in self.forward for store in stage.stores]
        return [store.buffer.key for store in stores if store.buffer.kind == "value"]

    @cached_property
    def kept_sizes(self) -> list[int]:
        """Columns of what the forward pass keeps: befores, values and ``saved``, at least 1."""
        befores = [self.step.state_sizes[p] for p in self.befores]
        values = [self.step.products[k].weight.columns for k in self.values]
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
        leaf = self.step.products[product].value
        if leaf.op != "leaf" or leaf.what.source != "state":
            return None
        return leaf.what.key if leaf.width == self.step.state_sizes[leaf.what.key] else None


def make_program(step: Step, *, backward: bool = True) -> Program:
    """Cut a step into stages, derive its backward pass, and choose what is saved in between.

    Raises:
        Untraceable: A stage is not of one width.
    """
    planner = _Planner(step)
    crossing = _columns(planner.crossing())
    size = sum(node.width for node in crossing)
    if not backward:
        return Program(step, planner.forward(crossing), saved=crossing, crossing=size)
    stages, units = planner.backward(crossing)
    shared, biases = _share(step, stages), _biases(stages, units)
    units = _without(biases, stages, units)
    saved = _columns([*crossing, *_kept(stages, set(crossing))])
    befores = _befores(step, stages)
    forward, gaps = planner.forward(saved), _gaps(step, stages)
    return Program(step, forward, stages, saved, size, units, shared, biases, gaps, befores)


class _Planner:
    def __init__(self, step: Step) -> None:
        self.step, self.graph, self.products = step, step.graph, step.products
        self._stages: dict[Node, int] = {}
        self._products: dict[int, int] = {}  # the stage that computes each
        self._widths: dict[int, int] = {}
        self.parts = [self._leaf_of(product, "state") for product in self.products]
        self.begins = [self._leaf_of(p, "state", "x") is not None for p in self.products]
        self.values = {k: p.value for k, p in enumerate(self.products) if not self.begins[k]}
        self.reductions = step.reductions
        reduced = [reduction.value for reduction in self.reductions]
        self.roots = [*step.state, *self.values.values(), *reduced]
        _refuse_overlaps(self.roots)
        self.count = 1 + max(map(self.place, self.roots))
        self.widths = [self._width(n) for n in range(self.count)]

    def _leaf_of(self, product: Product, *sources: str) -> Any:
        """The key of the whole matrix that a product's operand is; None if it is not one."""
        leaf = product.value
        if leaf.op != "leaf" or leaf.what.source not in sources:
            return None
        if leaf.what.source == "x":
            return "x" if leaf.width == self.step.wx_size else None
        return leaf.what.key if leaf.width == self.step.state_sizes[leaf.what.key] else None

    def stage(self, node: Node) -> int:
        """The stage that computes a node: the first of its width with all operands available."""
        if node not in self._stages:
            found = max(map(self.stage, node.args), default=0)
            if node.op == "leaf" and node.what.source == "product":
                found = self._stage_of_product(node.what.key, node.width)
            elif node.op == "leaf" and node.what.source == "reduction":
                found = self._stage_of_reduction(node.what.key)
            elif node.op != "leaf" and node.width:
                found = self._of_width(node.width, found)
            self._stages[node] = found
        return self._stages[node]

    def place(self, node: Node) -> int:
        """The stage that stores a node: also for leaves, one of the node's width."""
        stage = self.stage(node)
        return self._of_width(node.width, stage) if node.width else stage

    def _stage_of_product(self, k: int, width: int) -> int:
        if k not in self._products:
            self._products[k] = self._of_width(width, self._earliest(k))
        return self._products[k]

    def _stage_of_reduction(self, k: int) -> int:
        reduction = self.reductions[k]
        return self._of_width(reduction.width, self.place(reduction.value) + 1)

    def _earliest(self, k: int) -> int:
        return 0 if self.begins[k] else self.place(self.products[k].value) + 1

    def _of_width(self, width: int, first: int) -> int:
        """The first stage from ``first`` on whose width matches or is still free."""
        while self._widths.setdefault(first, width) != width:
            first += 1
        return first

    def crossing(self) -> list[Node]:
        """Nodes that a later stage reads."""
        found: dict[Node, None] = {}
        for node in walk(self.roots):
            for arg in node.args:
                if _is_computed(arg) and arg.width and self.stage(arg) < self.stage(node):
                    found[arg] = None
        return list(found)

    def forward(self, saved: dict[Node, int]) -> list[Stage]:
        """The stages of the forward pass."""
        stages = [Stage(width) for width in self.widths]
        for k, product in enumerate(self.products):
            n = self._products.get(k, self._earliest(k))
            value = Buffer("value", k)
            if self.begins[k]:
                value = Buffer(product.value.what.source, product.value.what.key or 0)
            blocks = product.weight.rows // self.widths[n]
            stages[n].products.append(StageProduct(k, value, blocks))
        for p, node in enumerate(self.step.state):
            stages[self.place(node)].state[p] = node
        for k, node in self.values.items():
            stages[self.place(node)].stores.append(Store(Buffer("value", k), 0, node))
        for k, reduction in enumerate(self.reductions):
            place = Buffer("reduced", k), 0
            stages[self.place(reduction.value)].stores.append(Store(*place, reduction.value))
            stages[self._stage_of_reduction(k)].reductions.append(k)
        for node, offset in saved.items():
            stages[self.place(node)].stores.append(Store(Buffer("saved"), offset, node))
        return stages

    def backward(self, crossing: dict[Node, int]) -> tuple[list[Stage], dict[Node, int]]:
        """The stages of the backward pass, and the pointwise parameters (``Program.units``)."""
        stages = []
        units: dict[Node, int] = {}
        stored: set[tuple[Buffer, int]] = set()  # later stores accumulate
        for n in reversed(range(self.count)):
            stage = Stage(self.widths[n])
            outputs = self._outputs(n, stage, crossing)
            inputs = self._inputs(n, list(outputs.values()), crossing)
            carried: dict[int, Node | None] = dict.fromkeys(stage.state)
            for leaf, gradient in zip(inputs, derive(self.graph, outputs, inputs), strict=True):
                crosses = leaf in crossing and self.stage(leaf) < n
                if not crosses and leaf.what.source == "state":
                    carried[leaf.what.key] = gradient
                    continue
                if not crosses and self._is_largest(leaf):
                    continue
                if not crosses and leaf.what.source == "parameter":
                    units[leaf] = max(units.get(leaf, 0), stage.width)  # a scalar has any stage's
                    place = (Buffer("unit", list(units).index(leaf)), 0)
                    stored.add(place)  # accumulates over rows and steps
                elif crosses:
                    place = (Buffer("dcross"), crossing[leaf])
                else:
                    kind = {"wx": "dwx", "product": "dz", "reduction": "dsum"}[leaf.what.source]
                    place = (Buffer(kind, leaf.what.key or 0), leaf.what.offset)
                node = self.graph.const(0) if gradient is None else gradient
                stage.stores.append(Store(*place, node, place in stored))
                stored.add(place)
            for p, gradient in sorted(carried.items()):
                place = (Buffer("carry", p), 0)
                stage.stores.append(Store(*place, gradient, place in stored))
                stored.add(place)
            stages.append(stage)
        return stages, units

    def _is_largest(self, leaf: Node) -> bool:
        found = leaf.what.source == "reduction"
        return found and self.reductions[leaf.what.key].op == "max"

    def _outputs(self, n: int, stage: Stage, crossing: dict[Node, int]) -> dict[Any, Node]:
        """Nodes of a stage with an incoming gradient, by the key of ``Columns("grad", …)``."""
        outputs: dict[Any, Node] = {}
        for p, node in enumerate(self.step.state):
            if self.place(node) == n:
                outputs["state", p] = stage.state[p] = node
        for k, product in enumerate(self.products):
            part = self.parts[k]
            if self.place(product.value if part is None else self.step.state[part]) == n:
                stage.products.append(StageProduct(k, Buffer("dz", k), 1))
                if part is None:
                    outputs["value", k] = product.value
        for k, reduction in enumerate(self.reductions):
            if reduction.op == "sum" and self.place(reduction.value) == n:
                stage.reductions.append(k)
                outputs["reduced", k] = reduction.value
        for node, offset in crossing.items():
            if self.stage(node) == n:
                outputs["cross", offset] = node
        return outputs

    def _inputs(self, n: int, outputs: Sequence[Node], crossing: dict[Node, int]) -> list[Node]:
        """What a stage's expressions read: leaves, and nodes of earlier stages."""
        found: dict[Node, None] = {}

        def visit(node: Node) -> None:
            other = node.op != "leaf" or node.what.source != "state"
            if not other and node.width != self.step.state_sizes[node.what.key]:
                raise Untraceable("a part of a state")
            if node.op == "leaf" or (node in crossing and self.stage(node) < n):
                found[node] = None
            else:
                for arg in node.args:
                    visit(arg)

        for node in outputs:
            visit(node)
        return list(found)

    def _width(self, n: int) -> int:
        nodes = [*self.roots, *self.crossing()]
        widths = {node.width for node in nodes if node.width and self.place(node) == n}
        if len(widths) != 1:
            raise Untraceable(f"a stage of {' and '.join(map(str, sorted(widths)))} units")
        (width,) = widths
        for leaf in walk(nodes):
            if leaf.op == "leaf" and leaf.what.source == "product" and self.stage(leaf) == n:
                rows = self.products[leaf.what.key].weight.rows
                if rows % width or leaf.what.offset % width:
                    raise Untraceable(f"a part of a product {rows} wide for {width} units")
        return width


def _refuse_overlaps(roots: Sequence[Node]) -> None:
    """Raise if leaves overlap, so that a column's gradient would be split between two stores."""
    pieces: dict[Any, list[tuple[int, int]]] = {}
    for node in walk(roots):
        if node.op == "leaf" and node.what.source in ("wx", "product"):
            source, key, offset = node.what.source, node.what.key, node.what.offset
            pieces.setdefault((source, key), []).append((offset, offset + node.width))
    for places in pieces.values():
        places.sort()
        for (_, end), (begin, _) in pairwise(places):
            if begin < end:
                raise Untraceable("pieces of a product that overlap")


def _is_computed(node: Node) -> bool:
    if node.op == "leaf":
        return node.what.source in ("product", "reduction")
    return node.op != "const"


def _columns(nodes: Sequence[Node]) -> dict[Node, int]:
    """The first column of each node when they are concatenated."""
    columns, size = {}, 0
    for node in nodes:
        columns[node], size = size, size + node.width
    return columns


def _kept(stages: Sequence[Stage], crossing: set[Node]) -> list[Node]:
    """The smallest set of nodes to save from which the backward pass can recompute the rest.

    A minimum cut between what the forward pass had and what the backward pass needs; of several,
    the one with the least recomputation. State, parameters and crossing nodes are available anyway.
    """
    free = dict.fromkeys(crossing)
    stored = {s.node for stage in stages for s in stage.stores if s.node is not None}
    nodes = walk(sorted(stored, key=lambda node: node.serial))
    late = {n for n in nodes if n.op == "leaf" and n.what.source == "grad"}
    for node in nodes:
        if late.intersection(node.args):
            late.add(node)
    needed = {arg for node in late for arg in node.args} | {
        node for node in nodes if node in stored
    }
    needed = {node for node in needed if node.width} - late - crossing
    network = _Network()
    ordered = sorted(needed, key=lambda node: node.serial)  # for determinism
    early = [node for node in walk(ordered, free) if node.width]
    for node in early:
        network.add((node, "after"), (node, "before"), node.width)
        for arg in node.args:
            if arg.width and arg not in free:
                network.add((node, "before"), (arg, "after"))
        if node in needed:
            network.add("needed", (node, "after"))
        if node.op == "leaf" and node.what.source in ("wx", "product", "reduction"):
            network.add((node, "before"), "had")
    near = network.near_side("needed", "had")
    cut = [n for n in early if (n, "after") in near and (n, "before") not in near]
    return sorted(cut, key=lambda node: node.serial)


def _befores(step: Step, stages: Sequence[Stage]) -> list[int]:
    """See ``Program.befores``."""
    needed = [store.node for stage in stages for store in stage.stores if store.node]
    needed += [product.value for product in step.products]
    for k, reduction in reversed(list(enumerate(step.reductions))):
        if any(_is_of(node, "reduction") and node.what.key == k for node in walk(needed)):
            needed.append(reduction.value)
    return sorted({node.what.key for node in walk(needed) if _is_of(node, "state")})


def _is_of(node: Node, source: str) -> bool:
    return node.op == "leaf" and node.what.source == source


class _Network:
    """A flow network, and its minimum cut by augmenting paths (Ford & Fulkerson, 1956).

    Importing a graph library would take longer than scheduling.
    """

    def __init__(self) -> None:
        self._room: dict[Any, dict[Any, float]] = {}

    def add(self, tail: Any, head: Any, capacity: float = float("inf")) -> None:
        """Add an edge."""
        self._room.setdefault(tail, {})[head] = capacity
        self._room.setdefault(head, {}).setdefault(tail, 0)

    def near_side(self, source: Any, sink: Any) -> set[Any]:
        """The source's side of the minimum cut that is nearest to the source."""
        while True:
            came: dict[Any, Any] = {source: None}
            queue = deque([source])
            while queue and sink not in came:
                tail = queue.popleft()
                for head, room in self._room.get(tail, {}).items():
                    if room and head not in came:
                        came[head] = tail
                        queue.append(head)
            if sink not in came:
                return set(came)
            path, head = [], sink
            while came[head] is not None:
                path.append((came[head], head))
                head = came[head]
            flow = min(self._room[tail][head] for tail, head in path)
            for tail, head in path:
                self._room[tail][head] -= flow
                self._room[head][tail] += flow


def _share(step: Step, stages: Sequence[Stage]) -> set[int]:
    """The products that can share the buffer of the projected input's gradient: it is equal."""
    stores = [store for stage in stages for store in stage.stores]

    def gradient(buffer: Buffer) -> dict[int, Node | None] | None:
        mine = [store for store in stores if store.buffer == buffer]
        return None if any(s.add for s in mine) else {s.offset: s.node for s in mine}

    whole = gradient(Buffer("dwx"))
    return {
        k
        for k, product in enumerate(step.products)
        if product.weight.rows == step.wx_size and whole and gradient(Buffer("dz", k)) == whole
    }


def _biases(stages: Sequence[Stage], units: Iterable[Node]) -> dict[Node, int]:
    """Find pointwise parameters whose gradient is a column sum of ``dwx``: the first column."""
    stores = [(stage.width, store) for stage in stages for store in stage.stores]

    def once(kind: str) -> dict[tuple[int, int], tuple[int, Node | None]]:
        """Width and node of each store into a kind of buffer, by key and column, if not summed."""
        mine = [(width, store) for width, store in stores if store.buffer.kind == kind]
        times = Counter((store.buffer.key, store.offset) for _, store in mine)
        found = {(s.buffer.key, s.offset): (width, s.node) for width, s in mine}
        return {place: what for place, what in found.items() if times[place] == 1}

    columns = {what: column for (_, column), what in once("dwx").items()}
    gradients = once("unit")
    return {
        leaf: columns[gradients[k, 0]]
        for k, leaf in enumerate(units)
        if gradients.get((k, 0)) in columns
    }


def _without(
    some: Container[Node], stages: Sequence[Stage], units: dict[Node, int]
) -> dict[Node, int]:
    """Remove some pointwise parameters from ``units`` and from the stages' stores."""
    leaves = list(units)
    left = {leaf: width for leaf, width in units.items() if leaf not in some}
    places = {leaf: k for k, leaf in enumerate(left)}
    for stage in stages:
        stores, stage.stores = stage.stores, []
        for store in stores:
            if store.buffer.kind == "unit":
                if leaves[store.buffer.key] not in places:
                    continue
                store = replace(store, buffer=Buffer("unit", places[leaves[store.buffer.key]]))
            stage.stores.append(store)
    return left


def _gaps(step: Step, stages: Sequence[Stage]) -> set[Buffer]:
    """Gradient buffers with columns that no stage stores."""
    stored: dict[Buffer, int] = {}
    for stage in stages:
        for store in stage.stores:
            if not store.add:
                stored[store.buffer] = stored.get(store.buffer, 0) + stage.width
    sizes = {Buffer("dwx"): step.wx_size}
    sizes |= {Buffer("dz", k): product.weight.rows for k, product in enumerate(step.products)}
    return {buffer for buffer, size in sizes.items() if stored.get(buffer, 0) < size}
