"""What one step computes: a cell's ``step``, and its derivative, as small graphs of arithmetic.

A step is run once, on a few rows of no matter what numbers, while every operation is written down.
What comes out are products by a parameter and sums over a row, and between them expressions for one
unit of one row: nothing there depends on a device, a batch or a number of steps.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets.cells import Cell

UNARY = {
    "neg", "sigmoid", "tanh", "exp", "log", "relu", "abs", "sqrt", "rsqrt", "reciprocal", "sin",
    "cos", "sign", "log1p", "expm1", "erf", "floor",
}  # fmt: skip
BINARY = {"add", "sub", "mul", "div", "maximum", "minimum"}
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


def trace_step(cell: Cell, *, project: bool = False) -> Step:
    """Trace ``cell.step``.

    Args:
        cell: The recurrence.
        project: Whether the projection of the input belongs to the step.

    Raises:
        Untraceable: It does something else than arithmetic on units, products by parameters and
            sums over rows.
    """
    recorder, bound, x, state = _stand_ins(cell)
    with _told_why(), torch.no_grad():
        if project:
            with recorder:
                after = bound.step(bound.project(x), state)
        else:
            x = bound.project(x)
            recorder.name(x, _View("wx", None, 0, x.shape[1]))
            with recorder:
                after = bound.step(x, state)
        bound.check_after(after, state)

    nodes = tuple(recorder.node(part) for part in after)
    for name, node, size in zip(cell.states, nodes, cell.state_sizes, strict=True):
        if node.width != size:
            raise Untraceable(f"state '{name}' becomes {node.width} units wide, not {size}")
    used = _used_parameters(recorder, nodes)
    step = Step(
        recorder.graph,
        tuple(recorder.products),
        tuple(recorder.sums),
        nodes,
        cell.state_sizes,
        x.shape[1],
        {name: tuple(p.shape) for name, p in cell.tensors().items() if name in used},
    )
    _compare(step, cell, project)
    return step


def _compare(step: Step, cell: Cell, project: bool) -> None:
    """Run a cell's own step beside the traced one, on other numbers, other rows, and backwards.

    What was read while tracing and is no number of a row (a branch, a count of rows, whether
    gradients are on) is seen here, and so is what autograd is told besides operations: ``detach``,
    ``no_grad``, functions with a backward pass of their own.

    Raises:
        Untraceable: They differ.
    """
    like, rows = cell._like, 7
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=dtype).requires_grad_()

    tensors = {
        name: numbers(*t.shape).detach() / max(1, t.shape[-1] if t.dim() > 1 else 1) ** 0.5
        if t.is_floating_point()
        else t.detach().cpu()
        for name, t in cell.tensors().items()
    }
    for name in step.parameters:
        if tensors[name].is_floating_point():
            tensors[name].requires_grad_()
    state = tuple(numbers(rows, size) for size in cell.state_sizes)
    bound = cell.bind(tensors)
    fixed = cell.bind({name: tensor.detach() for name, tensor in tensors.items()})
    with _told_why(), torch.enable_grad():
        if fixed.project(numbers(rows, cell.input_size).detach()).requires_grad:
            raise Untraceable("it projects by a tensor that learns and is none of its parameters")
        wx = numbers(rows, cell.input_size if project else step.wx_size)
        own = bound.step(bound.project(wx) if project else wx, state)
        traced = replay(step, wx, state, {name: tensors[name] for name in step.parameters})
        wanted = [wx, *state, *(tensors[name] for name in step.parameters)]
        wanted = [tensor for tensor in wanted if tensor.requires_grad]
        ends = [torch.randn(part.shape, generator=draw, dtype=dtype) for part in traced]
        slopes = [_slopes(parts, ends, wanted) for parts in (own, traced)]
    if not all(map(_are_near, own, traced)):
        raise Untraceable(
            "it gives something else than its operations on numbers, so it reads what is none: "
            "a branch, a count of rows, whether gradients are on"
        )
    if not project and not all(map(_are_near, *slopes)):
        raise Untraceable(
            "its gradient is not that of its operations: detach, no_grad, or a function with a "
            "backward pass of its own"
        )


def _slopes(
    outputs: Sequence[Tensor], ends: Sequence[Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of outputs for inputs; zeros where there is none."""
    total = sum((y * end).sum() for y, end in zip(outputs, ends, strict=True))
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(total, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _are_near(a: Tensor, b: Tensor) -> bool:
    """Whether numbers differ by rounding alone."""
    near = torch.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) | (a.isinf() & b.isinf())
    return bool(near.all())


def trace_projection(cell: Cell) -> tuple[str, str | None] | None:
    """The names of weight and bias, if ``cell.project`` is ``F.linear`` with these as they are."""
    recorder, bound, x, _ = _stand_ins(cell)
    try:
        with _told_why(), torch.no_grad(), recorder:
            projected = recorder.meaning(bound.project(x))
    except Untraceable:
        return None
    if not isinstance(projected, _View) or projected.source != "product" or projected.offset:
        return None
    product = recorder.products[projected.key]
    weight, bias = product.weight, projected.bias
    shapes = {name: tuple(p.shape) for name, p in cell.tensors().items()}
    whole = projected.width == weight.rows == shapes[weight.name][0] and weight.offset == 0
    if not whole or product.value is not recorder.node(x):
        return None
    if bias is None:
        return weight.name, None
    return (
        (weight.name, bias[0]) if bias[1:] == (0,) and shapes[bias[0]] == (weight.rows,) else None
    )


def _stand_ins(cell: Cell) -> tuple[_Recorder, Cell, Tensor, tuple[Tensor, ...]]:
    """A recorder, and what it knows: the cell with other parameters, an input and a state."""
    dtype, tensors = cell._like.dtype, cell.tensors()
    sizes = {size for tensor in tensors.values() for size in tensor.shape} | {1, *cell.state_sizes}
    rows = next(n for n in itertools.count(2) if n not in sizes)  # no size is taken for it
    half = dtype in (torch.bfloat16, torch.float16)  # which may be computed in single
    recorder = _Recorder(Graph(), rows, {dtype, torch.float32} if half else {dtype})

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=dtype)

    # a whole number may be a place in a tensor; place 0 there always is
    parameters = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    for name, tensor in parameters.items():
        recorder.name_parameter(tensor, name, scalar=1 not in cell.state_sizes)
    state = tuple(empty(rows, size) for size in cell.state_sizes)
    for key, part in enumerate(state):
        recorder.name(part, _View("state", key, 0, part.shape[1]))
    x = empty(rows, cell.input_size)
    recorder.name(x, _View("x", None, 0, cell.input_size))
    return recorder, cell.bind(parameters), x, state


@contextmanager
def _told_why() -> Iterator[None]:
    """What an equation may raise on numbers without meaning, as the reason it is untraceable."""
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Untraceable(str(error).splitlines()[0] if str(error) else repr(error)) from error


def derive(
    graph: Graph, outputs: Mapping[Any, Node], inputs: Sequence[Node]
) -> tuple[Node | None, ...]:
    """The vector–Jacobian product of expressions, by torch's own derivatives.

    Args:
        graph: Where the nodes are made.
        outputs: Expressions by a key; the leaf ``Columns("grad", key)`` is what comes in for each.
        inputs: What to differentiate for: leaves, or nodes that count as such. What is the same
            for all units of a row counts as one number a unit: its gradient is the sum of theirs.

    Returns:
        The gradient for each input; None where there is none.
    """
    recorder = _Recorder(graph, 2, {torch.float64, torch.get_default_dtype()}, in_place=True)
    width = max((node.width for node in outputs.values()), default=0)
    stand_ins: dict[Node, Tensor] = {}
    for node in inputs:
        truth = node.op in COMPARISONS
        stand_ins[node] = torch.empty(2, width, dtype=torch.bool if truth else torch.float64)
        recorder.name(stand_ins[node], node)
        stand_ins[node].requires_grad_(not truth)
    live = {key: node for key, node in outputs.items() if node.width}
    grads = [torch.empty(2, width, dtype=torch.float64) for _ in live]
    for grad, (key, node) in zip(grads, live.items(), strict=True):
        recorder.name(grad, graph.leaf(Columns("grad", key), node.width))
    with recorder, torch.enable_grad():
        computed = evaluate(tuple(live.values()), stand_ins)
        reached = [(y, g) for y, g in zip(computed, grads, strict=True) if y.requires_grad]
        if not reached:
            return (None,) * len(inputs)
        end = Entry.apply([g for _, g in reached], *(y for y, _ in reached))
        smooth = [node for node in inputs if stand_ins[node].requires_grad]
        wanted = [stand_ins[node] for node in smooth]
        gradients = torch.autograd.grad(end, wanted, allow_unused=True)
        found = dict(zip(smooth, gradients, strict=True))
    return tuple(None if (g := found.get(node)) is None else recorder.node(g) for node in inputs)


class Entry(torch.autograd.Function):
    """A number without meaning, through whose gradient others come in: those in a list.

    ``torch.autograd.grad`` takes gradients too, and loads sympy for it, a third of a second. The
    list may be filled after this was applied.
    """

    @staticmethod
    def forward(ctx: Any, grads: list[Tensor], *outputs: Tensor) -> Tensor:  # noqa: D102
        ctx.grads = grads
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        return None, *ctx.grads


def evaluate(nodes: Sequence[Node], values: Mapping[Node, Tensor]) -> list[Any]:
    """Compute nodes with torch, from the values of some they are made of."""
    known: dict[Node, Any] = dict(values)
    for node in walk(nodes, known):
        known[node] = (
            node.what if node.op == "const" else OPERATIONS[node.op](*(known[a] for a in node.args))
        )
    return [known[node] for node in nodes]


def _bounded(pick: Callable[..., Tensor], bound: str) -> Callable[..., Any]:
    def operation(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor):
            a, b = b, a
        return pick(a, b) if isinstance(b, Tensor) else torch.clamp(a, **{bound: b})

    return operation


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{op: getattr(torch, op) for op in UNARY | BINARY | COMPARISONS},
    "maximum": _bounded(torch.maximum, "min"),
    "minimum": _bounded(torch.minimum, "max"),
    "sub": lambda a, b: a - b,
    "where": torch.where,
}


def replay(
    step: Step, wx: Tensor, state: Sequence[Tensor], parameters: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """One traced step in torch's operations: (B, W) and each state (B, H) to the state after."""
    known: dict[Node, Any] = {}
    products: dict[int, Tensor] = {}

    def leaf(node: Node) -> Tensor:
        source, key, offset = node.what.source, node.what.key, node.what.offset
        if source == "product":
            if key not in products:
                product = step.products[key]
                first, rows = product.weight.offset, product.weight.rows
                weight = parameters[product.weight.name][first : first + rows]
                products[key] = F.linear(value(product.value), weight)
            whole = products[key]
        elif source == "sum":
            return value(step.sums[key]).sum(-1, keepdim=True)
        elif source == "parameter":
            whole = parameters[key]
        else:
            whole = state[key] if source == "state" else wx
        return whole[..., offset : offset + node.width] if node.width else whole

    def value(node: Node) -> Any:
        for n in walk([node], known):
            if n.op == "leaf":
                known[n] = leaf(n)
            elif n not in known:
                known[n] = evaluate([n], known)[0]
        return known[node]

    return tuple(value(node) for node in step.state)


def walk(roots: Sequence[Node], known: Mapping[Node, Any] | None = None) -> list[Node]:
    """All nodes that others are made of, each after its arguments; what is known is left out."""
    order: dict[Node, None] = {}
    known = {} if known is None else known

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


@dataclass(frozen=True)
class _View:
    """Columns of a matrix that has not been computed with yet, plus those of a bias."""

    source: str
    key: Any
    offset: int
    width: int
    bias: tuple[str, int] | None = None

    def part(self, offset: int, width: int) -> _View:
        bias = None if self.bias is None else (self.bias[0], self.bias[1] + offset)
        return _View(self.source, self.key, self.offset + offset, width, bias)


@dataclass(frozen=True)
class _Transposed:
    weight: Weight


_SAME = {
    "detach", "alias", "clone", "lift_fresh", "contiguous", "view", "_unsafe_view", "expand",
    "reshape", "unsqueeze", "squeeze", "_to_copy",
}  # fmt: skip
_PIECES = {"slice", "split", "split_with_sizes", "narrow"}
_TURNED = {"t", "transpose", "numpy_T"}
_FILLS = {
    "zeros_like", "new_zeros", "zeros", "ones_like", "new_ones", "ones", "full", "full_like",
    "new_full", "scalar_tensor",
}  # fmt: skip


class _Recorder(TorchDispatchMode):
    """Writes down what each tensor is while operations run.

    Args:
        graph: Where the nodes are made.
        rows: Rows of a batch, a size that nothing else has.
        dtypes: What may be computed in.
        in_place: Whether operations in place may change what others see.
    """

    def __init__(
        self, graph: Graph, rows: int, dtypes: set[torch.dtype], *, in_place: bool = False
    ) -> None:
        super().__init__()
        self.graph = graph
        self.rows = rows
        self._dtypes = dtypes
        self.products: list[Product] = []
        self.sums: list[Node] = []
        self._in_place = in_place
        self._meaning: dict[int, Any] = {}
        self._alive: list[Tensor] = []  # an address names a tensor only as long as that lives
        self._sharing: Counter[int] = Counter()  # how many named tensors share a memory

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would load its compiler, which takes a second, to be told to skip this

    def name(self, tensor: Tensor, meaning: Any) -> None:
        """Say what a tensor is."""
        if id(tensor) not in self._meaning:
            self._alive.append(tensor)
            self._sharing[_memory(tensor)] += 1
        self._meaning[id(tensor)] = meaning

    def name_parameter(self, tensor: Tensor, name: str, *, scalar: bool) -> None:
        """Say that a tensor is a parameter; ``scalar``, that one number is not one a unit."""
        if tensor.dim() == 2:
            self.name(tensor, Weight(name, 0, *tensor.shape))
        elif tensor.dim() == 0 or (scalar and tensor.numel() == 1):
            self.name(tensor, self._number(tensor, self.graph.leaf(Columns("parameter", name), 0)))
        elif tensor.dim() == 1:
            self.name(tensor, _View("parameter", name, 0, len(tensor)))

    def meaning(self, tensor: Tensor) -> Any:
        """What was said of a tensor; None if nothing."""
        return self._meaning.get(id(tensor))

    def node(self, value: Any) -> Node:
        """What a tensor or a number is, as a node."""
        if isinstance(value, (bool, int, float)):
            return self.graph.const(value)
        meaning = self._meaning.get(id(value)) if isinstance(value, Tensor) else None
        if isinstance(meaning, Node):
            return meaning
        if isinstance(meaning, _View):
            columns = Columns(meaning.source, meaning.key, meaning.offset)
            node = self._number(value, self.graph.leaf(columns, meaning.width))
            if meaning.bias is None:
                return node
            bias = Columns("parameter", *meaning.bias)
            return self.graph.apply("add", node, self.graph.leaf(bias, meaning.width))
        raise Untraceable(f"arithmetic with {_told(value, meaning)}")

    def _number(self, tensor: Tensor, leaf: Node) -> Node:
        """What a leaf is for its tensor: loops hold what is true or false as 1 or 0."""
        truth = tensor.dtype == torch.bool
        return self.graph.apply("ne", leaf, self.graph.const(0)) if truth else leaf

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place and not self._in_place and self._sharing[_memory(args[0])] != 1:
            raise Untraceable(f"aten.{name}: an operation in place on what others see")
        if name in _COMPOSED:  # simpler operations, each of which comes by here
            with self:
                return _COMPOSED[name](*args, **kwargs)
        if name.removesuffix("_") not in _KNOWN:
            try:
                with self:
                    composed = _decomposed(func, args, kwargs)
            except Untraceable as part:  # named by what the step calls
                raise Untraceable(f"aten.{name}, in which {part}") from part
            if composed is not NotImplemented:
                return composed
        if name in ("mm", "addmm"):  # its numbers do not matter
            result = args[-2].new_empty(args[-2].shape[0], args[-1].shape[1])
        else:
            result = func(*args, **kwargs)
        self._check_dtypes(name.removesuffix("_"), args, result)
        meanings = self._meanings(name.removesuffix("_"), args, kwargs, result)
        if in_place:
            self.name(args[0], meanings)
        elif isinstance(result, (list, tuple)):
            for tensor, meaning in zip(result, meanings, strict=True):
                self.name(tensor, meaning)
        else:
            self.name(result, meanings)
        return result

    def _check_dtypes(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Raise if an operation rounds in a way that nodes do not, or counts in other numbers.

        What is true or false may become the number 1 or 0, and such numbers may be summed.
        """
        if name not in _KNOWN:  # it will be named for that
            return
        given = [arg.dtype for arg in args if isinstance(arg, Tensor)]
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if name in ("mm", "addmm"):
                fine = {*given} <= self._dtypes
            elif name in _PIECES | _TURNED | _SAME and given[0] in (tensor.dtype, torch.bool):
                fine = True
            else:
                fine = tensor.dtype in self._dtypes or name in COMPARISONS | _FILLS
                fine = fine or (name == "sum" and given == [torch.bool])
            if not fine and name == "_to_copy":
                raise Untraceable(f"a cast of {given[0]} to {tensor.dtype}")
            if not fine:
                told = " and ".join(sorted({str(dtype) for dtype in given}))
                raise Untraceable(f"aten.{name} of {told}, which is {tensor.dtype}")

    def _meanings(self, name: str, args: tuple[Any, ...], kwargs: Any, result: Any) -> Any:
        first = self._meaning.get(id(args[0])) if args and isinstance(args[0], Tensor) else None
        if name in _SAME:
            return self._reshaped(name, args[0], first, result)
        if name in _TURNED and isinstance(first, Weight):
            return _Transposed(first)
        if name in _PIECES:
            return self._pieces(name, args[0], first, args[1:], result)
        if name in ("mm", "addmm"):
            return self._product(name, args, kwargs)
        if name in _FILLS:
            return self.graph.const(self._filled_in(name, args, result))
        if name == "copy":
            return self.node(args[1])
        if name in ("sum", "mean"):
            return self._sum(name, args, kwargs)
        return self._pointwise(name, args, kwargs)

    def _filled_in(self, name: str, args: tuple[Any, ...], result: Tensor) -> float:
        """The number that a tensor is full of: as it was given, unless the tensor rounds it."""
        if name in ("full", "full_like", "new_full") and result.dtype in self._dtypes:
            return args[-1]
        if name == "scalar_tensor" and result.dtype in self._dtypes:
            return args[0]
        return result.flatten()[0].item()

    def _reshaped(self, name: str, before: Tensor, meaning: Any, after: Tensor) -> Any:
        """A view of the same units, or of one number a row."""
        whole = (self.rows, meaning.width) if isinstance(meaning, (Node, _View)) else before.shape
        one_a_row = [(self.rows,), (self.rows, 1), (1, self.rows, 1)]
        shapes = tuple(before.shape), tuple(after.shape)
        same_units = shapes[1] == whole or shapes[0][-1:] == shapes[1][-1:]
        if meaning is not None and (same_units or all(shape in one_a_row for shape in shapes)):
            return meaning
        if after.dim() > 2:  # whatever computes with it will be named
            return None
        raise Untraceable(f"aten.{name} of {_told(before, meaning)}")

    def _pieces(self, name: str, whole: Tensor, meaning: Any, args: Any, result: Any) -> Any:
        dim = args[0] if name in ("slice", "narrow") and args else args[1] if len(args) > 1 else 0
        dim %= whole.dim()
        step = args[3] if name == "slice" and len(args) > 3 else 1
        pieces = [result] if isinstance(result, Tensor) else result
        same = all(piece.shape == whole.shape for piece in pieces) and step == 1
        if same or (isinstance(meaning, Node) and meaning.op == "const"):
            named = [meaning] * len(pieces)
        elif whole.dim() > 2:
            named = [None] * len(pieces)
        elif step != 1 or not isinstance(meaning, (Weight, _View)):
            raise Untraceable(f"a part of {_told(whole, meaning)}")
        else:
            offset = 0
            if name in ("slice", "narrow"):
                start = args[1] if len(args) > 1 and args[1] is not None else 0
                offset = min(start + whole.shape[dim] if start < 0 else start, whole.shape[dim])
            named = []
            for piece in pieces:
                named.append(_part(whole, meaning, dim, offset, piece.shape[dim]))
                offset += piece.shape[dim]
        return named[0] if isinstance(result, Tensor) else named

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        value, right = args[-2:]
        weight = self._meaning.get(id(right))
        if not isinstance(weight, _Transposed) or kwargs:
            raise Untraceable(f"a product by {_told(right, weight)}")
        bias = None
        if name == "addmm":
            view = self._meaning.get(id(args[0]))
            if not (isinstance(view, _View) and view.source == "parameter"):
                raise Untraceable(f"a bias that is {_told(args[0], view)}")
            bias = (view.key, view.offset)
        product = Product(self.node(value), weight.weight)
        if product not in self.products:
            self.products.append(product)
        return _View("product", self.products.index(product), 0, weight.weight.rows, bias)

    def _sum(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        value, dims = self.node(args[0]), list(args[1]) if len(args) > 1 else []
        last = args[0].dim() - 1
        if dims not in ([-1], [last]) or kwargs or not value.width:
            raise Untraceable(f"aten.{name} over other than the units of a row")
        if value not in self.sums:
            self.sums.append(value)
        total = self.graph.leaf(Columns("sum", self.sums.index(value)), value.width)
        if name == "sum":
            return total
        return self.graph.apply("mul", total, self.graph.const(1 / value.width))

    def _pointwise(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        apply, const = self.graph.apply, self.graph.const
        alpha = kwargs.pop("alpha", 1)
        if kwargs:
            raise Untraceable(f"aten.{name} with {', '.join(kwargs)}")
        if name in ("add", "sub", "rsub"):
            if len(args) > 2:
                alpha = args[2]
            a, b = self.node(args[0]), self.node(args[1])
            if name == "rsub":
                a, b, name = b, a, "sub"
            return apply(name, a, b if alpha == 1 else apply("mul", b, const(alpha)))
        if name == "sigmoid_backward":
            grad, y = map(self.node, args)
            return apply("mul", grad, apply("mul", y, apply("sub", const(1), y)))
        if name == "tanh_backward":
            grad, y = map(self.node, args)
            return apply("mul", grad, apply("sub", const(1), apply("mul", y, y)))
        if name == "threshold_backward":
            grad, x = map(self.node, args[:2])
            return apply("where", apply("gt", x, const(args[2])), grad, const(0))
        if name == "square" or (name == "pow" and args[1] == 2):
            a = self.node(args[0])
            return apply("mul", a, a)
        if name == "pow" and args[1] in _POWERS:
            return _POWERS[args[1]](apply, const, self.node(args[0]))
        if name in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
            a = self.node(args[0])
            low, high = _bounds(name, args[1:])
            a = a if low is None else apply("maximum", a, self.node(low))
            return a if high is None else apply("minimum", a, self.node(high))
        name = "sign" if name == "sgn" else name
        if len(args) == (3 if name == "where" else 2) and name in COMPARISONS | BINARY | {"where"}:
            return apply(name, *map(self.node, args))
        if name in UNARY and len(args) == 1:
            return apply(name, self.node(args[0]))
        raise Untraceable(f"aten.{name}")


_POWERS: dict[Any, Callable[..., Node]] = {
    1: lambda apply, const, a: a,
    3: lambda apply, const, a: apply("mul", a, apply("mul", a, a)),
    0.5: lambda apply, const, a: apply("sqrt", a),
    -0.5: lambda apply, const, a: apply("rsqrt", a),
    -1: lambda apply, const, a: apply("reciprocal", a),
}

_KNOWN = (
    _SAME | _FILLS | _PIECES | _TURNED | UNARY | BINARY | COMPARISONS
    | {"mm", "addmm", "sum", "mean", "rsub", "where", "square", "pow", "sgn", "copy"}
    | {"sigmoid_backward", "tanh_backward", "threshold_backward"}
    | {"hardtanh", "clamp", "clamp_min", "clamp_max"}
)  # fmt: skip


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Two sums, one after the other, so that no digits cancel."""
    if len(shape) != 1:
        raise Untraceable("aten.native_layer_norm over more than the units of a row")
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    scale = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    y = centred * scale
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, scale


def _variance(x: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> Any:
    centred = x - x.mean(dim, keepdim=True)
    return centred.square().sum(dim, keepdim=keepdim) / (x.shape[-1] - correction)


_COMPOSED: dict[str, Callable[..., Any]] = {
    "native_layer_norm": _layer_norm,
    "var": _variance,
    "lerp": lambda a, b, weight: a + weight * (b - a),
    "remainder": lambda a, b: a - torch.floor(a / b) * b,
    "addcmul": lambda x, a, b, *, value=1: x + value * (a * b),
}


def _decomposed(func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """An operation run as torch itself puts it together from simpler ones, if it does."""
    from torch._decomp import decomposition_table

    if func in decomposition_table:
        return decomposition_table[func](*args, **kwargs)
    return func.decompose(*args, **kwargs)


def _bounds(name: str, args: Sequence[Any]) -> tuple[Any, Any]:
    low, high = (*args, None, None)[:2]
    if name == "hardtanh":
        return (-1.0 if low is None else low), (1.0 if high is None else high)
    return (None, low) if name == "clamp_max" else (low, high)


def _part(whole: Tensor, meaning: Any, dim: int, offset: int, size: int) -> Any:
    if isinstance(meaning, Weight) and dim == 0:
        return Weight(meaning.name, meaning.offset + offset, size, meaning.columns)
    if isinstance(meaning, _View) and dim == whole.dim() - 1:
        return meaning.part(offset, size)
    raise Untraceable(f"a part of the rows of {_told(whole, meaning)}")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _used_parameters(recorder: _Recorder, outputs: Sequence[Node]) -> set[str]:
    roots = [*outputs, *(product.value for product in recorder.products), *recorder.sums]
    leaves = {node.what for node in walk(roots) if node.op == "leaf"}
    used = {leaf.key for leaf in leaves if leaf.source == "parameter"}
    return used | {product.weight.name for product in recorder.products}


def _told(value: Any, meaning: Any) -> str:
    if isinstance(meaning, (Weight, _Transposed)):
        weight = meaning.weight if isinstance(meaning, _Transposed) else meaning
        return f"the matrix {weight.name}"
    if isinstance(meaning, (Node, _View)):
        return "something computed"
    if isinstance(value, Tensor) and value.dim() > 2:
        return f"a tensor of {value.dim()} dimensions"
    if isinstance(value, Tensor):
        return f"a tensor from elsewhere, {tuple(value.shape)}"
    return type(value).__name__
