"""A step as a small graph of arithmetic.

Its leaves are columns of inputs, of the state, of products by a parameter and of sums over a row;
between them are expressions for one unit of one row. Nothing here depends on a device, a batch or a
number of steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNARY = {
    "neg", "sigmoid", "tanh", "exp", "log", "relu", "abs", "sqrt", "rsqrt", "reciprocal", "sin",
    "cos", "sign", "log1p", "expm1", "erf", "floor",
}  # fmt: skip
BINARY = {"add", "sub", "mul", "div", "remainder", "maximum", "minimum"}
COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne"}


class Untraceable(Exception):  # noqa: N818  a reason, not a mistake
    """The step does something that the graphs cannot say; the message tells what."""


@dataclass(frozen=True, eq=False)
class Node:
    """One number for one unit of one row. Equal nodes are the same object within a graph.

    Attributes:
        op: "const", "leaf", "where", or a name in ``UNARY``, ``BINARY`` or ``COMPARISONS``.
        args: The nodes it is computed from.
        what: A constant's value, or which leaf.
        width: How many units there are; 0 for what is the same number in every row and unit.
        serial: Which node of its graph it is.
    """

    op: str
    args: tuple[Node, ...]
    what: Any
    width: int
    serial: int


@dataclass(frozen=True)
class Columns:
    """A leaf: units ``offset …`` of each row of a matrix.

    Attributes:
        source: "x" (the input), "wx" (the projected input), "state", "product", "sum" (of a row,
            the same for all its units), "grad" (what a derivative starts from) or "parameter" (one
            row for all).
        key: Which state part, product, sum, gradient or parameter.
        offset: The first column.
    """

    source: str
    key: Any
    offset: int = 0


@dataclass(frozen=True)
class Weight:
    """Rows of a matrix parameter: (rows, columns)."""

    name: str
    offset: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Product:
    """``value @ weight.T``, (B, rows).

    Attributes:
        value: What is multiplied, of the weight's number of columns.
        weight: By what.
    """

    value: Node
    weight: Weight


class Graph:
    """Makes nodes, each only once, in simplest form."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def leaf(self, columns: Columns, width: int) -> Node:
        """The node of a leaf."""
        return self._node("leaf", (), columns, width)

    def const(self, value: float) -> Node:
        """The node of a number."""
        return self._node("const", (), float(value), 0)

    def apply(self, op: str, *args: Node) -> Node:
        """The node of an operation on nodes.

        Raises:
            Untraceable: The arguments' widths differ.
        """
        widths = {arg.width for arg in args} - {0}
        if len(widths) > 1:
            raise Untraceable(f"{op} of {' and '.join(map(str, sorted(widths)))} units")
        return self._simpler(op, args) or self._node(op, args, None, max(widths, default=0))

    def _simpler(self, op: str, args: tuple[Node, ...]) -> Node | None:
        zero, one = self.const(0), self.const(1)
        if all(arg.op == "const" for arg in args) and op in _EXACT:
            return self.const(_EXACT[op](*(arg.what for arg in args)))
        if op == "add" and zero in args:
            return args[1] if args[0] is zero else args[0]
        if op == "sub" and args[1] is zero:
            return args[0]
        if op == "sub" and args[0] is zero:
            return self.apply("neg", args[1])
        if op == "mul" and one in args:
            return args[1] if args[0] is one else args[0]
        if op == "mul" and zero in args:
            return zero
        if op == "div" and args[1] is one:
            return args[0]
        if op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        return None

    def _node(self, op: str, args: tuple[Node, ...], what: Any, width: int) -> Node:
        if op in ("add", "mul", "maximum", "minimum"):  # the order does not matter
            args = tuple(sorted(args, key=lambda arg: arg.serial))
        key = (op, tuple(arg.serial for arg in args), what, width)
        if key not in self._nodes:
            self._nodes[key] = Node(op, args, what, width, len(self._nodes))
        return self._nodes[key]


_EXACT: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
}


@dataclass(frozen=True)
class Step:
    """A traced step.

    Attributes:
        graph: Where the nodes are made.
        products: In the order in which they are computed.
        sums: What is summed over the units of a row, in the order in which it is computed.
        state: The state after the step, in the cell's order.
        state_sizes: Width of each part of the state.
        wx_size: Columns of the projected input; of the input itself, where its projection belongs
            to the step.
        parameters: Names and shapes of the parameters that the step uses.
    """

    graph: Graph
    products: tuple[Product, ...]
    sums: tuple[Node, ...]
    state: tuple[Node, ...]
    state_sizes: tuple[int, ...]
    wx_size: int
    parameters: dict[str, tuple[int, ...]]

    @property
    def roots(self) -> list[Node]:
        """All that has to be computed."""
        return [*self.state, *(product.value for product in self.products), *self.sums]

    def to_text(self) -> str:
        """The step as text, from which ``step_from_text`` makes an equal one anywhere."""
        place = {node: i for i, node in enumerate(walk(self.roots))}
        return json.dumps(
            {
                "nodes": [
                    [n.op, [place[a] for a in n.args], _plain(n.what), n.width] for n in place
                ],
                "products": [[place[p.value], *vars(p.weight).values()] for p in self.products],
                "sums": [place[node] for node in self.sums],
                "state": [place[node] for node in self.state],
                "state_sizes": self.state_sizes,
                "wx_size": self.wx_size,
                "parameters": self.parameters,
            },
            separators=(",", ":"),
        )


def step_from_text(text: str) -> Step:
    """The step that ``Step.to_text`` wrote down."""
    data = json.loads(text)
    graph = Graph()
    nodes: list[Node] = []
    for op, args, what, width in data["nodes"]:
        if op == "leaf":
            nodes.append(graph.leaf(Columns(*what), width))
        elif op == "const":
            nodes.append(graph.const(float(what)))
        else:
            nodes.append(graph.apply(op, *(nodes[arg] for arg in args)))
    return Step(
        graph,
        tuple(Product(nodes[value], Weight(*weight)) for value, *weight in data["products"]),
        tuple(nodes[i] for i in data["sums"]),
        tuple(nodes[i] for i in data["state"]),
        tuple(data["state_sizes"]),
        data["wx_size"],
        {name: tuple(shape) for name, shape in data["parameters"].items()},
    )


def _plain(what: Any) -> Any:
    """A leaf's columns or a constant for JSON, which has no word for infinity."""
    return [what.source, what.key, what.offset] if isinstance(what, Columns) else repr(what)


def walk(roots: Sequence[Node], known: Container[Any] = ()) -> list[Node]:
    """All nodes that others are made of, each after its arguments; what is known is left out."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order and node not in known:
            for arg in node.args:
                visit(arg)
            order[node] = None

    for root in roots:
        visit(root)
    return list(order)


def reached_among(known: Mapping[Node, Any], roots: Sequence[Node]) -> list[Node]:
    """Which known nodes the roots are, or are made of directly, in their own order."""
    reached = {arg for node in walk(list(roots), known) for arg in node.args} | set(roots)
    return [node for node in known if node in reached]
