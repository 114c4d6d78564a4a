"""Detection of linear recurrences h_t = a_t h_{t-1} + b_t in a step's graph, for parallel scans.

Sums of state parts, and multiples by what does not depend on them, are linear. Two parts that
rotate and scale each other form one complex number. State parts that no step reads back are
unrestricted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from seqnets.engine.graph import Columns, Graph, Node, Untraceable, walk, whole_of
from seqnets.engine.preparation import PREPARED
from seqnets.engine.program import Program
from seqnets.engine.step import Step


@dataclass(frozen=True)
class Linear:
    """State parts that become ``a`` times themselves plus ``b``: one, or two as a complex number.

    Attributes:
        parts: Indices of the state parts.
        a: Real part of the factor, and the imaginary part if there are two.
        b: The summand, likewise.
        moves: Whether ``a`` is 0: a delay by one step, which needs no scan.
    """

    parts: tuple[int, ...]
    a: tuple[Node, ...]
    b: tuple[Node, ...]
    moves: bool = False


@lru_cache(maxsize=256)
def linear_parts(program: Program, names: tuple[str, ...]) -> tuple[Linear, ...]:
    """The state parts that a step reads, each after those its ``a`` and ``b`` depend on.

    Args:
        program: The program of the step.
        names: Names of the state parts, for error messages.

    Raises:
        Untraceable: There is no such order; the message says what is not linear.
    """
    step = program.step
    waiting = read_parts(step, step.state)
    found: list[Linear] = []
    while waiting:
        reasons = []
        for parts in (*combinations(sorted(waiting), 1), *combinations(sorted(waiting), 2)):
            try:
                found.append(_linear(step, parts, waiting, names))
            except Untraceable as reason:
                reasons.append(reason)
                continue
            waiting -= {*parts}
            break
        else:
            raise reasons[0]
    return tuple(found)


@dataclass(frozen=True)
class Recurrences:
    """Both passes of a program as scans, each independent of other units and other scans.

    Attributes:
        forward: The recurrences of the state parts that a step reads, by part.
        backward: The recurrences of the gradients of state parts, backwards in time, by part.
    """

    forward: dict[int, Linear]
    backward: dict[int, Linear]


@lru_cache(maxsize=256)
def recurrences(program: Program) -> Recurrences | None:
    """A program as scans; None if it is not one."""
    step = program.step
    if step.products or step.reductions or len(program.forward) > 1 or len({*step.state_sizes}) > 1:
        return None
    try:
        forward = linear_parts(program, tuple(map(str, range(len(step.state)))))
        carried = {
            store.buffer.key: store.node
            for store in program.backward[0].stores
            if store.buffer.kind == "carry" and store.node is not None
        }
        backward = [_linear_gradient(step, p, node) for p, node in carried.items()]
    except Untraceable:
        return None
    if any(len(linear.parts) > 1 for linear in forward):
        return None
    for source, found in (("state", forward), ("grad", backward)):
        scanned = {linear.parts[0] for linear in found if not linear.moves}
        for linear in found:
            if not linear.moves and scanned & _parts_among((*linear.a, *linear.b), source):
                return None
    return Recurrences(_by_part(forward), _by_part(backward))


def _by_part(found: Sequence[Linear]) -> dict[int, Linear]:
    return {linear.parts[0]: linear for linear in found}


def _linear_gradient(step: Step, part: int, carry: Node) -> Linear:
    """The gradient of a part before a step, as a linear function of the one after it.

    Raises:
        Untraceable: It is not linear.
    """
    mine = step.graph.leaf(Columns("grad", ("state", part)), step.state_sizes[part])
    a, b = Split(step.graph, lambda leaf: 0 if leaf is mine else None, f"gradient {part}").of(carry)
    return Linear((part,), (a,), (b,), moves=a is step.graph.const(0))


def _parts_among(nodes: Sequence[Node], source: str) -> set[int]:
    """State parts whose value before a step, or gradient after it, some nodes read."""
    keys = [node.what.key for node in walk(nodes) if node.source == source]
    return {key if source == "state" else key[1] for key in keys}


def _linear(step: Step, parts: tuple[int, ...], unknown: set[int], names: Sequence[str]) -> Linear:
    """The recurrence of some parts, where parts outside ``unknown`` count as known.

    Raises:
        Untraceable: They are not linear, or are two that do more than rotate and scale.
    """

    def place(leaf: Node) -> int | None:
        """The index of a leaf among the parts; None if it depends on nothing unknown."""
        if not read_parts(step, [leaf]) & unknown:
            return None
        columns = leaf.what
        if columns.source == "product":
            weight = step.products[columns.key].weight.name
            matrix = "a matrix that is computed" if weight.startswith(PREPARED) else weight
            raise Untraceable(f"a product by {matrix} depends on it")
        if columns.source == "reduction":
            op = step.reductions[columns.key].op
            raise Untraceable(f"a {op} over the units of a row depends on it")
        if columns.key not in parts:
            state, other = names[parts[0]], names[columns.key]
            raise Untraceable(f"'{state}' depends on '{other}', and that on others")
        return parts.index(columns.key)

    split = Split(step.graph, place, names[parts[0]], len(parts))
    forms = [split.of(step.state[p]) for p in parts]
    b = tuple(form[-1] for form in forms)
    if len(parts) == 1:
        (a, _) = forms[0]
        return Linear(parts, (a,), b, moves=a is step.graph.const(0))
    (a, minus, _), (turn, same, _) = forms
    if a is not same or step.graph.apply("neg", minus) is not turn:
        raise Untraceable("two state parts do more to each other than rotate and scale")
    return Linear(parts, (a, turn), b)


def read_parts(step: Step, nodes: Sequence[Node]) -> set[int]:
    """The state parts that expressions read, directly or through products and reductions."""
    leaves = [node for node in walk(nodes) if node.op == "leaf"]
    return {part for leaf in leaves for part in _read_by(step, *whole_of(leaf))}


def _read_by(step: Step, source: str, key: Any) -> Collection[int]:
    """The state parts that a leaf of a source reads; those of a product are looked up once."""
    if source == "state":
        return (key,)
    if source not in ("product", "reduction"):
        return ()
    if (source, key) not in step.parts_read:
        made = step.products if source == "product" else step.reductions
        step.parts_read[source, key] = read_parts(step, [made[key].value])
    return step.parts_read[source, key]


class Split:
    """Splits expressions into factors of some leaves and a summand.

    Args:
        graph: The graph that owns them.
        place: The index of a leaf; None for one that is independent of them. It raises
            ``Untraceable`` for any other dependence.
        name: Name of the first leaf, for error messages.
        count: Number of leaves.
    """

    def __init__(
        self, graph: Graph, place: Callable[[Node], int | None], name: str, count: int = 1
    ) -> None:
        self._place, self._count, self._name = place, count, name
        self._apply, self._zero, self._one = graph.apply, graph.const(0), graph.const(1)
        self._found: dict[Node, tuple[Node, ...]] = {}

    def of(self, node: Node) -> tuple[Node, ...]:
        """A factor for each leaf, and the summand.

        Raises:
            Untraceable: The node is not linear in the leaves.
        """
        for each in walk([node], self._found):
            self._found[each] = self._leaf(each) if each.op == "leaf" else self._split(each)
        return self._found[node]

    def _leaf(self, node: Node) -> tuple[Node, ...]:
        place = self._place(node)
        if place is None:
            return self._without(node)
        return *(self._one if i == place else self._zero for i in range(self._count)), self._zero

    def _without(self, node: Node) -> tuple[Node, ...]:
        """The form of a node that is independent of the leaves."""
        return *(self._zero for _ in range(self._count)), node

    def _split(self, node: Node) -> tuple[Node, ...]:
        forms = [self._found[arg] for arg in node.args]
        linear = [any(factor is not self._zero for factor in form[:-1]) for form in forms]
        rest = [form[-1] for form in forms]  # the operands without leaves that cancel out
        if not any(linear):
            return self._without(node if rest == [*node.args] else self._apply(node.op, *rest))
        if node.op in ("neg", "add", "sub"):
            return tuple(self._apply(node.op, *terms) for terms in zip(*forms, strict=True))
        if node.op == "mul" and not all(linear):
            form, by = (0, 1) if linear[0] else (1, 0)
            return tuple(self._scaled("mul", term, rest[by]) for term in forms[form])
        if node.op == "div" and not linear[1]:
            return tuple(self._scaled("div", term, rest[1]) for term in forms[0])
        if node.op == "where" and not linear[0]:
            pairs = zip(*forms[1:], strict=True)
            return tuple(self._chosen(rest[0], *pair) for pair in pairs)
        raise Untraceable(f"{node.op} of '{self._name}'")

    def _scaled(self, op: str, term: Node, by: Node) -> Node:
        """Scale a term, keeping its sign outermost, so that opposite factors are recognised."""
        if term.op == "neg":
            return self._apply("neg", self._apply(op, term.args[0], by))
        return term if term is self._zero else self._apply(op, term, by)

    def _chosen(self, condition: Node, yes: Node, no: Node) -> Node:
        return yes if yes is no else self._apply("where", condition, yes, no)
