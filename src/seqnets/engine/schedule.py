"""Scheduling: from a traced ``Step`` to the ``Program`` of its two passes.

Nothing here depends on a target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from typing import Any

from seqnets.engine.derivative import derive
from seqnets.engine.division import Division
from seqnets.engine.graph import Node, walk
from seqnets.engine.program import Buffer, Program, Stage, StageProduct, Store
from seqnets.engine.saved_for_backward import nodes_to_save, states_to_save
from seqnets.engine.step import Step


def make_program(step: Step, *, backward: bool = True) -> Program:
    """Cut a step into stages, derive its backward pass, and choose what is saved in between.

    Raises:
        Untraceable: As for ``Division``.
    """
    passes = _Passes(Division(step))
    crossing = passes.crossing
    size = sum(node.width for node in crossing)
    if not backward:
        return Program(step, passes.forward(crossing), saved=crossing, crossing=size)
    stages, units = passes.backward()
    shared, biases = _share(step, stages), _biases(stages, units)
    units = _without(biases, stages, units)
    saved = _columns([*crossing, *nodes_to_save(stages, set(crossing))])
    befores = states_to_save(step, stages)
    forward, gaps = passes.forward(saved), _gaps(step, stages)
    return Program(step, forward, stages, saved, size, units, shared, biases, gaps, befores)


class _Passes:
    """The stages of both passes over a divided step.

    Attributes:
        crossing: Nodes that a later stage reads, and their first columns.
    """

    def __init__(self, division: Division) -> None:
        self._division, self.step = division, division.step
        self._needed: set[int] = set()  # of the products, those whose gradient leads on
        for k, product in enumerate(self.step.products):
            inside = walk([product.value], (), lambda n: () if n.op == "detach" else n.args)
            if self.step.is_learned(k) or any(map(self._leads_on, inside)):
                self._needed.add(k)
        self._has_gradient: set[int] = set()  # of the products, as far as stages are derived
        self._stored: set[tuple[Buffer, int]] = set()  # buffers and first columns, likewise
        self.crossing = _columns(division.crossing)

    def forward(self, saved: dict[Node, int]) -> list[Stage]:
        """The stages of the forward pass."""
        division = self._division
        stages = [Stage(width) for width in division.widths]

        def store(buffer: Buffer, offset: int, node: Node) -> None:
            stages[division.stored_in(node)].stores.append(Store(buffer, offset, node))

        for k, product in enumerate(self.step.products):
            n, value = division.product_in(k), Buffer("value", k)
            if k not in division.values:
                value = Buffer(product.value.what.source, product.value.what.key or 0)
            blocks = product.weight.rows // division.widths[n]
            stages[n].products.append(StageProduct(k, value, blocks))
        for p, node in enumerate(self.step.state):
            stages[division.state_in(p)].state[p] = node
        for k, node in division.values.items():
            store(Buffer("value", k), 0, node)
        for k, reduction in enumerate(self.step.reductions):
            store(Buffer("reduced", k), 0, reduction.value)
            stages[division.reduction_in(k)].reductions.append(k)
        for node, offset in saved.items():
            store(Buffer("saved"), offset, node)
        return stages

    def backward(self) -> tuple[list[Stage], list[tuple[Node, int]]]:
        """The stages of the backward pass, and the pointwise parameters (``Program.units``)."""
        graph, stages = self.step.graph, []
        units: list[tuple[Node, int]] = []

        def store(stage: Stage, buffer: Buffer, offset: int, node: Node | None) -> None:
            """Let a stage store a gradient; after the first one of a place, they accumulate."""
            adds = buffer.kind == "unit" or (buffer, offset) in self._stored
            stage.stores.append(Store(buffer, offset, node, adds))
            self._stored.add((buffer, offset))

        for n in reversed(range(len(self._division.widths))):
            stage = Stage(self._division.widths[n])
            outputs = self._outputs(n, stage)
            inputs = self._inputs(n, list(outputs.values()))
            carried: dict[int, Node | None] = dict.fromkeys(stage.state)
            gradients = derive(graph, outputs, inputs, stage.width)
            for leaf, gradient in zip(inputs, gradients, strict=True):
                node = graph.const(0) if gradient is None else gradient
                if leaf.op == "leaf" and not self._leads_on(leaf):
                    continue
                if self._is_of_an_earlier(leaf, n):
                    store(stage, Buffer("dcross"), self.crossing[leaf], node)
                elif leaf.source == "state":
                    carried[leaf.what.key] = gradient
                elif leaf.source == "parameter":
                    if (unit := (leaf, stage.width)) not in units:
                        units.append(unit)
                    store(stage, Buffer("unit", units.index(unit)), 0, node)
                else:
                    kind = {"wx": "dwx", "product": "dz", "reduction": "dsum"}[leaf.what.source]
                    if kind == "dz" and gradient is not None:
                        self._has_gradient.add(leaf.what.key)
                    store(stage, Buffer(kind, leaf.what.key or 0), leaf.what.offset, node)
            for p, gradient in sorted(carried.items()):
                store(stage, Buffer("carry", p), 0, gradient)
            stages.append(stage)
        return self._without_zeros(stages), units

    def _without_zeros(self, stages: Sequence[Stage]) -> list[Stage]:
        """Backward stages without gradients of products of which only copies are read."""
        for stage in stages:
            stage.stores = [
                store
                for store in stage.stores
                if store.buffer.kind != "dz" or store.buffer.key in self._has_gradient
            ]
            stage.products = [p for p in stage.products if p.product in self._has_gradient]
        return [stage for stage in stages if stage.stores or stage.state]

    def _is_of_an_earlier(self, node: Node, n: int) -> bool:
        """Whether a stage before the n-th has computed a node for later ones."""
        return node in self.crossing and self._division.computed_in(node) < n

    def _leads_on(self, node: Node) -> bool:
        """Whether it is a leaf whose gradient leads to one of input, state or parameters."""
        if node.op != "leaf":
            return False
        key = node.what.key
        if node.source == "reduction":
            return self.step.reductions[key].op == "sum"
        if node.source == "parameter":
            return key not in self.step.constants
        return node.source != "product" or key in self._needed

    def _outputs(self, n: int, stage: Stage) -> dict[Any, Node]:
        """Nodes of a stage with an incoming gradient, by the key of ``Columns("grad", …)``."""
        outputs: dict[Any, Node] = {}
        division, state = self._division, self.step.state
        for p, node in enumerate(state):
            if division.state_in(p) == n:
                outputs["state", p] = stage.state[p] = node
        for k, product in enumerate(self.step.products):
            part = division.parts[k]
            if part is None and k not in self._has_gradient:
                continue  # all that reads it is detached
            stored = division.stored_in(product.value) if part is None else division.state_in(part)
            if stored == n:
                stage.products.append(StageProduct(k, Buffer("dz", k), 1))
                if part is None:
                    outputs["value", k] = product.value
        for k, reduction in enumerate(self.step.reductions):
            given = (Buffer("dsum", k), 0) in self._stored  # else likewise, or a maximum
            if given and division.stored_in(reduction.value) == n:
                stage.reductions.append(k)
                outputs["reduced", k] = reduction.value
        for node, offset in self.crossing.items():
            given = (Buffer("dcross"), offset) in self._stored
            if given and division.computed_in(node) == n:
                outputs["cross", offset] = node
        return outputs

    def _inputs(self, n: int, outputs: Sequence[Node]) -> list[Node]:
        """What a stage's expressions read: leaves, and nodes of earlier stages."""

        def operands(node: Node) -> Sequence[Node]:
            return () if self._is_of_an_earlier(node, n) else node.args

        inside = walk(outputs, (), operands)
        return [node for node in inside if node.op == "leaf" or self._is_of_an_earlier(node, n)]


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


def _biases(stages: Sequence[Stage], units: Iterable[tuple[Node, int]]) -> dict[Node, int]:
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
        for k, (leaf, _) in enumerate(units)
        if leaf.width and gradients.get((k, 0)) in columns
    }


def _without(
    some: Container[Node], stages: Sequence[Stage], units: list[tuple[Node, int]]
) -> list[tuple[Node, int]]:
    """Remove some pointwise parameters from ``units`` and from the stages' stores."""
    left = [(leaf, width) for leaf, width in units if leaf not in some]
    numbered = {Buffer("unit", units.index(unit)): Buffer("unit", k) for k, unit in enumerate(left)}
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
    rows = [product.weight.rows for product in step.products]
    sizes = {each: rows[each.key] for each in stored if each.kind == "dz"}
    sizes[Buffer("dwx")] = step.wx_size
    return {buffer for buffer, size in sizes.items() if stored.get(buffer, 0) < size}
