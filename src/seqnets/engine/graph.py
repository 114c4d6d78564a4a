"""The graph of a step's pointwise arithmetic: hash-consed nodes.

Leaves are columns of inputs, of the state, of matrix products and of row reductions; all other
nodes are pointwise. ``step.py`` adds the products and reductions themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import Any

UNARY = {
    "neg", "sigmoid", "tanh", "exp", "log", "relu", "abs", "sqrt", "rsqrt", "reciprocal", "sin",
    "cos", "sign", "log1p", "expm1", "erf", "floor", "detach", "exp2", "sinh", "cosh", "asinh",
    "acosh", "asin", "acos", "atan",
}  # fmt: skip
BINARY = {"add", "sub", "mul", "div", "remainder", "maximum", "minimum", "atan2"}
COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne"}
JUMPS = COMPARISONS | {"sign", "floor", "remainder"}
"""Operations of which a difference of rounding alone changes the result much."""
REDUCTIONS = {"sum", "max"}


class Untraceable(Exception):  # noqa: N818  a reason, not a mistake
    """The step does something that a graph cannot represent; the message says what."""


@dataclass(frozen=True, eq=False)
class Node:
    """A pointwise value: one number per unit and row. Equal nodes of a graph are one object.

    Attributes:
        op: "const", "leaf", "where", or a name in ``UNARY``, ``BINARY`` or ``COMPARISONS``. Only
            during tracing also "cat" (concatenation), a name in ``REDUCTIONS`` (over the units of a
            row) and "spread" (one number per row, broadcast to its units).
        args: The operands.
        what: A constant's value, or a leaf's ``Columns``.
        width: Number of units; 0 for a scalar, the same in every row and unit.
        serial: Index within its graph.
    """

    op: str
    args: tuple[Node, ...]
    what: Any
    width: int
    serial: int

    @property
    def pieces(self) -> tuple[Node, ...]:
        """What it is a concatenation of; itself if it is none."""
        return self.args if self.op == "cat" else (self,)

    @property
    def source(self) -> str | None:
        """What a leaf reads columns of, see ``Columns``; None for any other node."""
        return self.what.source if self.op == "leaf" else None


@dataclass(frozen=True)
class Columns:
    """What a leaf reads: the columns of a matrix from ``offset`` on.

    Attributes:
        source: "x" (the input), "wx" (the projected input), "state", "product", "reduction" (the
            same for all units of a row), "grad" (an incoming gradient) or "parameter" (the same for
            all rows; a matrix is flattened).
        key: Which state part, product, reduction, gradient or parameter.
        offset: The first column.
    """

    source: str
    key: Any
    offset: int = 0


class Graph:
    """Builds nodes: hash-consed, and simplified algebraically.

    Attributes:
        parts: The slices that were taken of pointwise nodes, by node, first unit and width.
    """

    def __init__(self) -> None:
        self.parts: dict[tuple[Node, int, int], Node] = {}
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def leaf(self, columns: Columns, width: int) -> Node:
        """The leaf that reads these columns."""
        return self._node("leaf", (), columns, width)

    def const(self, value: float) -> Node:
        """The node of a constant."""
        return self._node("const", (), float(value), 0)

    def apply(self, op: str, *args: Node) -> Node:
        """The node of a pointwise operation; operands of width 1 are broadcast to all units.

        Raises:
            Untraceable: The operands' widths differ.
        """
        widths = {arg.width for arg in args} - {0}
        width = max(widths, default=0)
        if widths - {1, width}:
            raise Untraceable(f"{op} of {' and '.join(map(str, sorted(widths)))} units")
        if len(widths) > 1:
            args = tuple(arg if arg.width != 1 else self.spread(arg, width) for arg in args)
        if width and not any(number_of(arg).width for arg in args):
            return self.spread(self.apply(op, *map(number_of, args)), width)
        if any(arg.op == "cat" for arg in args):
            pieces = []
            for offset, size in _common_pieces(args):
                piece = self.apply(op, *(self.part(arg, offset, size) for arg in args))
                pieces.append(self.spread(piece, size))  # times zero, it is one number
            return self.cat(*pieces)
        return self._simpler(op, args) or self._node(op, args, None, width)

    def spread(self, node: Node, width: int) -> Node:
        """Broadcast a node of width 1 or 0 to ``width`` units."""
        return node if node.width == width else self._node("spread", (node,), None, width)

    def reduce(self, op: str, node: Node) -> Node:
        """The sum or maximum over the units of each row."""
        return self.fold(op, [self._reduced(op, piece) for piece in node.pieces])

    def _reduced(self, op: str, node: Node) -> Node:
        if node.op == "spread":
            (each,) = node.args
            return self.apply("mul", each, self.const(node.width)) if op == "sum" else each
        return node if node.width == 1 else self._node(op, (node,), None, 1)

    def fold(self, op: str, nodes: Sequence[Node]) -> Node:
        """The pointwise sum or maximum of several nodes."""
        total, *others = nodes
        for node in others:
            total = self.apply("add" if op == "sum" else "maximum", total, node)
        return total

    def cat(self, *nodes: Node) -> Node:
        """Concatenate nodes; adjacent columns of a matrix become one leaf."""
        pieces: list[Node] = []
        for node in nodes:
            for piece in node.pieces:
                joined = _joined(pieces[-1], piece) if pieces else None
                if joined is None:
                    pieces.append(piece)
                else:
                    pieces[-1] = self.leaf(*joined)
        if len(pieces) == 1:
            return pieces[0]
        return self._node("cat", tuple(pieces), None, sum(piece.width for piece in pieces))

    def part(self, node: Node, offset: int, width: int) -> Node:
        """A slice of a node's units, pushed down to its leaves."""
        if node.width == width or node.width == 0:
            return node
        if node.op == "spread":
            return self.spread(node.args[0], width)
        if node.op == "leaf":
            if node.source in ("reduction", "grad"):
                raise Untraceable(f"a part of a {node.source}")
            return self.leaf(replace(node.what, offset=node.what.offset + offset), width)
        if node.op == "cat":
            pieces, last = [], offset + width
            ends = accumulate(piece.width for piece in node.args)
            for piece, end in zip(node.args, ends, strict=True):
                begin = end - piece.width
                low, high = max(offset, begin), min(last, end)
                if low < high:
                    pieces.append(self.part(piece, low - begin, high - low))
            return self.cat(*pieces)
        key = node, offset, width
        if key not in self.parts:
            args = (self.part(arg, offset, width) for arg in node.args)
            self.parts[key] = self.apply(node.op, *args)
        return self.parts[key]

    def rebuilt(self, node: Node, made: Mapping[Node, Node]) -> Node:
        """A node with what is made of each of its operands in place of that."""
        args = [made[arg] for arg in node.args]
        if args == [*node.args]:
            return node
        if node.op == "cat":
            return self.cat(*args)
        if node.op == "spread":
            return self.spread(args[0], node.width)
        if node.op in REDUCTIONS:
            return self.reduce(node.op, *args)
        return self.apply(node.op, *args)

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
        if op == "detach" and args[0].op in COMPARISONS | {"const", "detach"}:
            return args[0]  # has no gradient anyway
        return None

    def _node(self, op: str, args: tuple[Node, ...], what: Any, width: int) -> Node:
        if op in ("add", "mul", "maximum", "minimum"):  # commutative
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


def _common_pieces(nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """Offsets and widths of the coarsest pieces that cross no concatenation boundary of a node."""
    ends: set[int] = set()
    for node in nodes:
        ends.update(accumulate(piece.width for piece in node.pieces))
    cuts = sorted(ends | {0})
    return [(low, high - low) for low, high in pairwise(cuts)]


def number_of(node: Node) -> Node:
    """The number that a node broadcasts, if it is the same for all rows; else the node."""
    return node.args[0] if node.op == "spread" and not node.args[0].width else node


def _joined(a: Node, b: Node) -> tuple[Columns, int] | None:
    """The leaf that two adjacent leaves form; None if they are not adjacent."""
    if a.source in (None, "reduction", "grad"):
        return None
    after = replace(a.what, offset=a.what.offset + a.width)
    return (a.what, a.width + b.width) if b.what == after else None


_args = attrgetter("args")


def walk(
    roots: Sequence[Node],
    known: Container[Any] = (),
    operands: Callable[[Node], Sequence[Node]] = _args,
) -> list[Node]:
    """The nodes that roots depend on, in topological order; the walk stops at ``known`` ones."""
    order: dict[Node, None] = {}
    ahead = [*reversed(roots)]  # a long chain would be too deep for recursion
    while ahead:
        node = ahead[-1]
        if node in order or node in known:
            ahead.pop()
        elif args := [arg for arg in operands(node) if arg not in order and arg not in known]:
            ahead += reversed(args)
        else:
            order[ahead.pop()] = None
    return list(order)


def walk_down_to(ops: set[str], roots: Sequence[Node]) -> list[Node]:
    """As ``walk``, but not on to the operands of nodes with some operations."""
    return walk(roots, (), lambda node: () if node.op in ops else node.args)


def reached_among(known: Mapping[Node, Any], roots: Sequence[Node]) -> list[Node]:
    """The known nodes at which a walk from the roots stops, in the order of ``known``."""
    reached = {arg for node in walk(roots, known) for arg in node.args} | set(roots)
    return [node for node in known if node in reached]


Place = tuple[int, int]
"""First column and width of a piece of a matrix."""


def whole_of(leaf: Node) -> tuple[str, Any]:
    """The matrix of which a leaf reads columns: its source and key."""
    return leaf.what.source, leaf.what.key


def places_read(nodes: Sequence[Node]) -> dict[tuple[str, Any], list[Place]]:
    """The pieces of each matrix that are leaves among some nodes, sorted."""
    read: dict[tuple[str, Any], set[Place]] = {}
    for leaf in (node for node in nodes if node.op == "leaf"):
        read.setdefault(whole_of(leaf), set()).add((leaf.what.offset, leaf.width))
    return {whole: sorted(places) for whole, places in read.items()}


def overlap(places: Sequence[Place]) -> bool:
    """Whether two of some sorted pieces overlap."""
    return any(first + width > after for (first, width), (after, _) in pairwise(places))


def common_width(places: Sequence[Place]) -> int:
    """The width of sorted pieces that are all of one; 0 if they overlap or differ in it."""
    widths = {width for _, width in places}
    return widths.pop() if len(widths) == 1 and not overlap(places) else 0


def cuts_of(node: Node, read: Mapping[tuple[str, Any], Sequence[Place]]) -> list[int]:
    """Where a node is to be cut, so that its leaves are pieces that overlap with no others read."""
    cuts = []
    for leaf in walk_down_to({"spread"}, [node]):
        if leaf.op == "leaf":
            first, end = leaf.what.offset, leaf.what.offset + leaf.width
            beside = [at for at in read[whole_of(leaf)] if at[0] < end and first < sum(at)]
            cuts += [*chain(*beside)] if overlap(beside) else []
    return cuts
