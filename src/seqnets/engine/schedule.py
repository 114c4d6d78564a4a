"""Scheduling: from a traced ``Step`` to the ``Program`` of its two passes.

Nothing here depends on a target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import Any

from seqnets.engine.derivative import derive
from seqnets.engine.graph import Node, Step, Untraceable, overlap, places_read, walk
from seqnets.engine.program import Buffer, Program, Stage, StageProduct, Store
from seqnets.engine.saving import nodes_to_save, states_to_save


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
    saved = _columns([*crossing, *nodes_to_save(stages, set(crossing))])
    befores = states_to_save(step, stages)
    forward, gaps = planner.forward(saved), _gaps(step, stages)
    return Program(step, forward, stages, saved, size, units, shared, biases, gaps, befores)


class _Planner:
    """The division of a step into stages, and the stages of each pass.

    A node is computed in one stage, and stored in one that has its width.
    """

    def __init__(self, step: Step) -> None:
        self.step, self.graph, self.products = step, step.graph, step.products
        self._stages: dict[Node, int] = {}
        self._products: dict[int, int] = {}  # the stage that computes each
        self._widths: dict[int, int] = {}
        operands = [product.value for product in self.products]
        self.parts = [step.whole_state(operand) for operand in operands]
        self.begins = [
            part is not None or self._is_input(operand)
            for part, operand in zip(self.parts, operands, strict=True)
        ]
        self.values = {k: node for k, node in enumerate(operands) if not self.begins[k]}
        self.reductions = step.reductions
        reduced = [reduction.value for reduction in self.reductions]
        self.roots = [*step.state, *self.values.values(), *reduced]
        _refuse_overlaps(self.roots)
        self.count = 1 + max(map(self.place, self.roots))
        self.widths = [self._width(n) for n in range(self.count)]

    def _is_input(self, node: Node) -> bool:
        """Whether a node is the whole input, in a step that includes the projection."""
        return node.op == "leaf" and node.what.source == "x" and node.width == self.step.wx_size

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
        stored: set[tuple[Buffer, int]] = set()

        def store(stage: Stage, buffer: Buffer, offset: int, node: Node | None) -> None:
            """Let a stage store a gradient; after the first one of a place, they accumulate."""
            adds = buffer.kind == "unit" or (buffer, offset) in stored
            stage.stores.append(Store(buffer, offset, node, adds))
            stored.add((buffer, offset))

        for n in reversed(range(self.count)):
            stage = Stage(self.widths[n])
            outputs = self._outputs(n, stage, crossing)
            inputs = self._inputs(n, list(outputs.values()), crossing)
            carried: dict[int, Node | None] = dict.fromkeys(stage.state)
            for leaf, gradient in zip(inputs, derive(self.graph, outputs, inputs), strict=True):
                node = self.graph.const(0) if gradient is None else gradient
                if leaf in crossing and self.stage(leaf) < n:
                    store(stage, Buffer("dcross"), crossing[leaf], node)
                elif leaf.what.source == "state":
                    carried[leaf.what.key] = gradient
                elif leaf.what.source == "parameter":
                    units[leaf] = max(units.get(leaf, 0), stage.width)  # a scalar has any stage's
                    store(stage, Buffer("unit", list(units).index(leaf)), 0, node)
                elif not self._is_largest(leaf):
                    kind = {"wx": "dwx", "product": "dz", "reduction": "dsum"}[leaf.what.source]
                    store(stage, Buffer(kind, leaf.what.key or 0), leaf.what.offset, node)
            for p, gradient in sorted(carried.items()):
                store(stage, Buffer("carry", p), 0, gradient)
            stages.append(stage)
        return stages, units

    def _is_largest(self, leaf: Node) -> bool:
        """Whether a leaf is a maximum, which has no gradient."""
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
    for (source, _), places in places_read(walk(roots)).items():
        if source in ("wx", "product") and overlap(places):
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
    """Find pointwise parameters whose gradient is a column sum of ``dwx``: the first column.

    That of a single number is the sum of several columns, and stays among ``units``.
    """
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
        if leaf.width and gradients.get((k, 0)) in columns
    }


def _without(
    some: Container[Node], stages: Sequence[Stage], units: dict[Node, int]
) -> dict[Node, int]:
    """Remove some pointwise parameters from ``units`` and from the stages' stores."""
    leaves = list(units)
    left = {leaf: width for leaf, width in units.items() if leaf not in some}
    numbered = {
        Buffer("unit", leaves.index(leaf)): Buffer("unit", k) for k, leaf in enumerate(left)
    }
    for stage in stages:
        stage.stores = [
            replace(store, buffer=numbered.get(store.buffer, store.buffer))
            for store in stage.stores
            if store.buffer.kind != "unit" or store.buffer in numbered
        ]
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
