"""The instructions of one step of a pass, each an operation of torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import reduce
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.evaluate import OPERATIONS, Values, columns_of, reduced
from seqnets.engine.graph import Node, walk
from seqnets.engine.program import Buffer, Program

Tensors = dict[Hashable, Tensor]
"""Tensors by node, or by a leaf's source and key: stacked over steps, or the same for all."""

VALID, FRESH = ("valid", 0), ("fresh", 0)  # masks: rows that run in a step; rows reset before it


class Hoisted(Values):
    """The hoisted values of a chunk of steps, (steps, B, ...), by node or by source and key."""

    def __init__(self, given: Tensors) -> None:
        super().__init__(self._leaf_of, given["zero", 0], given)

    def __missing__(self, key: Any) -> Tensor:
        if isinstance(key, Node):
            return super().__missing__(key)
        source, width = key
        assert source == "zeros", key  # all others are given
        self[key] = zeros = self["zero", 0].expand(-1, width)
        return zeros

    def _leaf_of(self, node: Node) -> Tensor:
        return columns_of(self[node.what.source, node.what.key], node.what.offset, node.width)

    def valid(self, tensor: Tensor) -> Tensor:
        """Zero a tensor outside the lengths."""
        return torch.where(self[VALID], tensor, 0) if VALID in self else tensor


def named(source: str, tensors: Iterable[tuple[Any, Tensor]]) -> Tensors:
    """Tensors of a source, such as "state", by source and key."""
    return {(source, key): tensor for key, tensor in tensors}


def _reduced(op: str, width: int) -> Callable[[Tensor], Tensor]:
    """A reduction over units, broadcast to ``width`` units."""
    return lambda x: reduced(op, x).expand(-1, width)


def _side_by_side(out: Tensor, *parts: Tensor) -> Tensor:
    return torch.cat(parts, 1, out=out)


def _joined(*parts: Tensor) -> Tensor:
    return torch.cat(parts, 1)


class Instructions:
    """The instructions of one step of a pass, over numbered slots.

    Attributes:
        late: Nodes that cannot be hoisted.
    """

    def __init__(self, program: Program, roots: Sequence[Node], sources: set[str]) -> None:
        self.program = program
        self.late: set[Node] = set()
        self.uses = Counter(roots)
        for node in walk(roots):
            self.uses.update(node.args)
            if node.source in sources or self.late & {*node.args}:
                self.late.add(node)
        self._slots: dict[Hashable, int] = {}  # all values of a step
        self._inputs: dict[Hashable, int] = {}  # slots filled before the step
        self._carried: dict[Hashable, int] = {}  # loop-carried: read by the next step
        self._code: list[tuple[Callable[..., Tensor], list[int], int]] = []

    def do(self, function: Callable[..., Tensor], *args: Hashable, to: Hashable) -> Hashable:
        """Append an instruction."""
        places = [self.read(arg) for arg in args]
        self._code.append((function, places, self._slots.setdefault(to, len(self._slots))))
        return to

    def read(self, key: Hashable) -> int:
        """The slot of a value; an input if no instruction has computed it."""
        if key not in self._slots:
            self._slots[key] = self._inputs[key] = len(self._slots)
        return self._slots[key]

    def carry(self, new: Hashable, to: Hashable) -> None:
        """Pass a value to the next step under another key."""
        self.read(to)
        self._carried[to] = self.read(new)

    def make(self, node: Node) -> Hashable:
        """Append the instructions for a node, unless it is hoisted or already computed."""
        for each in walk([node], self._slots, self.operands):
            if each in self.late:
                self._slots[each] = self.read(self.late_node(each))
        return node

    def operands(self, node: Node) -> Sequence[Node]:
        """What the instructions for a node read; nothing if it is hoisted."""
        return self._operation(node)[1] if node in self.late else ()

    def late_node(self, node: Node) -> Hashable:
        """Append the instructions for a node that cannot be hoisted."""
        function, operands = self._operation(node)
        return self.do(function, *map(self.make, operands), to=node)

    def _operation(self, node: Node) -> tuple[Callable[..., Tensor], tuple[Node, ...]]:
        """The operation that computes a pointwise node, and its operands."""
        for a, b in permutations(node.args) if node.op in ("add", "mul") else ():
            if b.op == "mul" and b in self.late and self.uses[b] == 1:
                if node.op == "add":
                    return torch.addcmul, (a, *b.args)
                for c, d in permutations(b.args):
                    if not {a, d} & self.late:  # reassociated, so that their product is hoisted
                        return torch.mul, (c, self.program.step.graph.apply("mul", a, d))
        return OPERATIONS[node.op], node.args

    def full(self, node: Node, width: int) -> Hashable:
        """Like ``make``, but broadcast to (B, width)."""
        if node in self.late:
            return self.make(node)
        return self.do(torch.add, node, ("zeros", width), to=("full", node, width))

    def run(self, hoisted: Hoisted, steps: Iterable[int]) -> Tensors:
        """Run steps, and return what the last one carries."""
        values: list[Any] = [None] * len(self._slots)
        moving = []
        for key, slot in self._inputs.items():
            values[slot] = hoisted[key]
            if hoisted[key].dim() == 3:
                moving.append((slot, hoisted[key].unbind(0)))
        ends = [self._slots[key] for key in self._carried]
        for t in steps:
            for slot, views in moving:
                values[slot] = views[t]
            for function, args, slot in self._code:
                values[slot] = function(*[values[arg] for arg in args])
            for slot, value in zip(ends, [values[i] for i in self._carried.values()], strict=True):
                values[slot] = value
        return {key: values[slot] for key, slot in zip(self._carried, ends, strict=True)}


class Forward(Instructions):
    """A forward step. Each product accumulates into its hoisted addends.

    Attributes:
        sums: Nodes that are a sum of a product's leaf and hoisted addends.
    """

    def __init__(self, program: Program, save: bool, masked: bool, fresh: bool) -> None:
        step, saved = program.step, list(program.saved) if save else []
        super().__init__(program, [*step.roots, *saved], {"state", "product", "reduction"})
        self.sums: dict[Node, tuple[Node, list[Node]]] = {}
        self._befores: list[Hashable] = [("state", p) for p in range(len(step.state))]
        for p, part in enumerate(self._befores if fresh else ()):
            self._befores[p] = self.do(torch.where, FRESH, ("start", p), part, to=("before", p))
        afters = [self.full(*part) for part in zip(step.state, step.state_sizes, strict=True)]
        for p, (before, after) in enumerate(zip(self._befores, afters, strict=True)):
            new = self.do(torch.where, VALID, after, before, to=("after", p)) if masked else after
            self.carry(new, to=("state", p))
        values = [step.products[k].value for k in program.kept_values if save]
        out = [afters[0], *(self._befores[p] for p in program.befores if save)]
        out += [self.full(node, node.width) for node in (*values, *saved)]
        if save and not saved:
            out.append(("zeros", 1))
        self.do(_side_by_side, ("out", 0), *out, to="kept")

    def begin_products(self, hoisted: Hoisted, steps: int) -> None:
        """Set each product of each step to the sum of its hoisted addends."""
        zero = hoisted["zero", 0]
        for k, product in enumerate(self.program.step.products):
            hoisted["product", k] = zero.new_zeros(steps, len(zero), product.weight.rows)
        for node, (leaf, addends) in self.sums.items():
            hoisted[node] = hoisted[leaf]
            for addend in addends:
                hoisted[leaf].add_(hoisted[addend])

    def late_node(self, node: Node) -> Hashable:
        """Append the instructions for a node; a product adds itself to its hoisted addends."""
        if (found := self._sum(node)) is None:
            return super().late_node(node)
        leaf, _ = found
        source, key, step = leaf.what.source, leaf.what.key, self.program.step
        if source == "state":
            return self._befores[key]
        if source == "reduction":
            reduction = step.reductions[key]
            value = self.full(reduction.value, reduction.value.width)
            return self.do(_reduced(reduction.op, leaf.width), value, to=node)
        product, whole = step.products[key], ("product", key)
        if whole not in self._slots:
            value = self.full(product.value, product.weight.columns)
            self.do(Tensor.addmm_, whole, value, ("weight", key), to=whole)
        self.sums[node] = found
        return node  # a view of the accumulated product

    def operands(self, node: Node) -> Sequence[Node]:
        """As in ``Instructions``; of a sum with a product, what that multiplies."""
        if node not in self.late or (found := self._sum(node)) is None:
            return super().operands(node)
        source, key, step = found[0].what.source, found[0].what.key, self.program.step
        if source == "state":
            return ()
        return ((step.reductions if source == "reduction" else step.products)[key].value,)

    def _sum(self, node: Node) -> tuple[Node, list[Node]] | None:
        """The leaf, and the hoisted addends of a product, that a node is the sum of, if it is."""
        leaf, addends = node, list[Node]()
        while leaf.op == "add" and (hoisted := {*leaf.args} - self.late):
            addends += hoisted
            (leaf,) = {*leaf.args} - hoisted
            if self.uses[leaf] > 1:
                return None
        if leaf.op != "leaf" or (addends and leaf.source != "product"):
            return None
        return leaf, addends


class Backward(Instructions):
    """A backward step.

    Attributes:
        out: Gradients that no step reads, with their buffers and first columns.
    """

    def __init__(self, program: Program, masked: bool, fresh: bool) -> None:
        self._stores: dict[tuple[Buffer, int], list[Node]] = defaultdict(list)
        for store in (store for stage in program.backward for store in stage.stores):
            if store.node is not None and store.node.width:  # others are zero
                self._stores[store.buffer, store.offset].append(store.node)
        roots = [node for nodes in self._stores.values() for node in nodes]
        super().__init__(program, roots, {"grad"})
        self._came: list[Hashable] = [("carry", p) for p in range(len(program.step.state))]
        self._came[0] = self.do(torch.add, ("carry", 0), ("grad_y", 0), to=("came", 0))
        products = {k: self._product(k) for k in sorted(program.differentiated)}
        for p in range(len(program.step.state)):
            self._carry_back(p, products, masked, fresh)
        kinds = {"unit"} if program.shared else {"unit", "dwx"}
        self.out: dict[Node, list[tuple[Buffer, int]]] = defaultdict(list)
        for place, nodes in self._stores.items():
            for node in nodes if place[0].kind in kinds else ():
                self.out[node].append(place)
        if self.out:
            parts = [self.full(node, node.width) for node in self.out]
            self.do(_side_by_side, ("out", None), *parts, to="kept")

    def _carry_back(
        self, p: int, products: Mapping[int, Hashable], masked: bool, fresh: bool
    ) -> None:
        """Append the instructions for the gradient of a state part before the step.

        Args:
            p: The state part.
            products: The gradients of products.
            masked: Whether rows may have ended before the step.
            fresh: Whether rows may be reset before the step.
        """
        size = self.program.step.state_sizes[p]
        zeros, start = ("zeros", size), ("start", p)
        goes = self._total(Buffer("carry", p), 0, size)
        for k, grad in products.items():
            if self.program.part_of(k) == p and goes == zeros:
                goes = self.do(torch.mm, grad, ("weight", k), to=("through", p, k))
            elif self.program.part_of(k) == p:
                goes = self.do(torch.addmm, goes, grad, ("weight", k), to=("through", p, k))
        if masked:
            goes = self.do(torch.where, VALID, goes, self._came[p], to=("goes", p))
        if fresh:
            lost = self.do(torch.where, FRESH, goes, zeros, to=("lost", p))
            goes = self.do(torch.where, FRESH, zeros, goes, to=("stays", p))
            self.carry(self.do(torch.add, start, lost, to=("starts", p)), to=start)
        self.carry(goes, to=("carry", p))

    def add_gradients(self, parts: Sequence[Tensor], dwx: Tensor, units: Tensor) -> None:
        """Add the gradients that no step reads to their buffers.

        Args:
            parts: The gradients of a chunk of steps, by ``out``.
            dwx: Those of the projected input, at these steps.
            units: Those of pointwise parameters, summed over rows and steps.
        """
        for grad, places in zip(parts, self.out.values(), strict=True):
            for buffer, offset in places:
                if buffer.kind == "dwx":
                    columns_of(dwx, offset, grad.shape[-1]).add_(grad)
                else:
                    column = self.program.unit_columns[self.program.units[buffer.key]]
                    columns_of(units, column, grad.shape[-1]).add_(grad.sum((0, 1)))

    def _total(self, buffer: Buffer, offset: int, width: int) -> Hashable:
        """The sum of all stores into some columns."""
        terms = [self.full(node, width) for node in self._stores.get((buffer, offset), ())]
        if not terms:
            return ("zeros", width)
        return reduce(lambda a, b: self.do(torch.add, a, b, to=("sum", a, b)), terms)

    def _product(self, k: int) -> Hashable:
        """The gradient of a product."""
        if ("dz", k) not in self._slots:
            buffer, rows = Buffer("dz", k), self.program.step.products[k].weight.rows
            widths = {some[0].width for at, some in self._stores.items() if at[0] == buffer}
            width = min(widths, default=rows)
            parts = [self._total(buffer, offset, width) for offset in range(0, rows, width)]
            if k in self.program.learned | self.program.shared:
                self.do(_side_by_side, ("out", k), *parts, to=("dz", k))
            else:
                self.do(_joined, *parts, to=("dz", k))
        return ("dz", k)

    def late_node(self, node: Node) -> Hashable:
        """Append the instructions for a node; a leaf is an incoming gradient."""
        if node.op != "leaf":
            return super().late_node(node)
        source, key = node.what.key
        if source == "state":
            return self._came[key]
        if source == "value":
            return self.do(torch.mm, self._product(key), ("weight", key), to=node)
        if source == "reduced":
            shares = self._total(Buffer("dsum", key), 0, self.program.step.reductions[key].width)
            return self.do(_reduced("sum", node.width), shares, to=node)
        return self._total(Buffer("dcross"), key, node.width)

    def operands(self, node: Node) -> Sequence[Node]:
        """As in ``Instructions``; of an incoming gradient, what is summed in it."""
        if node not in self.late or node.op != "leaf":
            return super().operands(node)
        source, key = node.what.key
        if source == "value":
            places = (place for place in self._stores if place[0] == Buffer("dz", key))
            return [node for place in places for node in self._stores[place]]
        place = (Buffer("dsum", key), 0) if source == "reduced" else (Buffer("dcross"), key)
        return () if source == "state" else self._stores.get(place, ())
