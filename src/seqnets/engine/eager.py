"""The path for machines without a compiler: a program run by torch's operations, few a step.

What does not depend on the state is computed for many steps at once. Of the forward pass that
leaves products, added to what is there already, and the equation in place. A backward pass is
linear in the gradients that come in: with their coefficients computed before, each step only
multiplies.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from seqnets.engine import fused
from seqnets.engine.fused import Gradients, Kept, Order
from seqnets.engine.plans import program_of
from seqnets.engine.program import Buffer, Program
from seqnets.engine.request import Request, under_transform
from seqnets.engine.trace import COMPARISONS, UNARY, Columns, Graph, Node, Untraceable, walk
from seqnets.typing import State

name = "eager"

_CHUNK = 2**17  # bytes of one number a unit that a backward pass works on at once: they stay cached


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    x = request.x
    if torch.compiler.is_compiling():
        return "torch.compile and torch.export cannot look inside its loop"
    if under_transform():
        return "it does not run under vmap, forward-mode or functional derivatives"
    if torch.is_autocast_enabled(x.device.type):
        return "it computes in the dtype of the parameters, not in autocast's"
    if not x.dtype.is_floating_point:
        return f"it computes in real numbers, not in {x.dtype}"
    if 0 in x.shape[:2]:
        return "there is nothing to run: no rows or no steps"
    try:
        program_of(request.cell)
    except Untraceable as reason:
        return f"the step cannot be traced: {reason}"
    return None


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    return fused.run(LOOPS, program_of(request.cell), request)


class _Loops:
    """Both passes, in torch's operations on any device."""

    def forward(
        self,
        program: Program,
        wx: Tensor,
        initial: State,
        start: State,
        parameters: dict[str, Tensor],
        order: Order,
        save: bool,
    ) -> tuple[Tensor, State, Kept | None]:
        code = _once(("forward", save), program, lambda: _ForwardCode(program, save))
        return _Forward(code, wx, parameters, order).run(initial, start)

    def backward(
        self,
        program: Program,
        kept: Kept,
        grad_y: Tensor | None,
        grad_final: Sequence[Tensor | None],
        parameters: dict[str, Tensor],
        order: Order,
    ) -> Gradients:
        masked = order.lengths is not None
        code = _once(("backward", masked), program, lambda: _BackwardCode(program, masked))
        return _Backward(code, kept, parameters, order).run(grad_y, grad_final)


LOOPS = _Loops()

_codes: dict[tuple[Any, int], Any] = {}


def _once(what: Any, program: Program, make: Callable[[], Any]) -> Any:
    key = what, id(program)
    if key not in _codes:
        _codes[key] = make()
        weakref.finalize(program, _codes.pop, key, None)
    return _codes[key]


# Instructions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One of torch's operations: it makes ``node`` from ``args``."""

    operation: Callable[..., Tensor]
    args: tuple[Node, ...]
    node: Node


def _unary(operation: Any) -> Callable[..., Tensor]:
    return lambda x, out=None: operation(x, out=out)


def _binary(operation: Any) -> Callable[..., Tensor]:
    return lambda x, y, out=None: operation(x, y, out=out)


def _ternary(operation: Any) -> Callable[..., Tensor]:
    return lambda x, y, z, out=None: operation(x, y, z, out=out)


def _less_product(x: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.addcmul(x, a, b, value=-1, out=out)


def _through_sigmoid(grad: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    if out is None:
        return torch.ops.aten.sigmoid_backward(grad, y)
    return torch.ops.aten.sigmoid_backward.grad_input(grad, y, grad_input=out)


def _through_tanh(grad: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    if out is None:
        return torch.ops.aten.tanh_backward(grad, y)
    return torch.ops.aten.tanh_backward.grad_input(grad, y, grad_input=out)


def _copy(x: Tensor, out: Tensor) -> Tensor:
    return out.copy_(x)


def _row_sum(x: Tensor, out: Tensor) -> Tensor:
    return torch.sum(x, -1, keepdim=True, out=out)


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    **{op: _unary(getattr(torch, op)) for op in UNARY - {"relu"}},
    "relu": lambda x, out=None: torch.clamp_min(x, 0, out=out),
    **{
        op: _binary(getattr(torch, op))
        for op in COMPARISONS | {"add", "sub", "mul", "div", "maximum", "minimum"}
    },
    "where": _ternary(torch.where),
    "mm": _binary(torch.mm),
}
_add_product, _lerp = _ternary(torch.addcmul), _ternary(torch.lerp)


def _choose(node: Node, alone: Callable[[Node], bool]) -> tuple[Callable[..., Tensor], Any]:
    """The operation that makes a node, together with arguments that nobody else needs."""
    op, args = node.op, node.args
    if op in ("add", "sub"):
        for a, b in (args, args[::-1]) if op == "add" else (args,):
            if b.op != "mul" or not alone(b) or not a.width:
                continue
            if op == "sub":
                return _less_product, (a, *b.args)
            for weight, way in (b.args, b.args[::-1]):
                if way.op == "sub" and way.args[1] is a and way.args[0].width and alone(way):
                    return _lerp, (a, way.args[0], weight)
            return _add_product, (a, *b.args)
    if op == "mul":
        for a, b in (args, args[::-1]):
            if not a.width or not alone(b):
                continue
            if b.op == "mul":
                for y, rest in (b.args, b.args[::-1]):
                    if _is_one_less(rest, y) and alone(rest):
                        return _through_sigmoid, (a, y)
            if b.op == "sub" and b.args[1].op == "mul" and alone(b.args[1]):
                y, same = b.args[1].args
                if y is same and _is_one_less(b, b.args[1]):
                    return _through_tanh, (a, y)
    return _OPERATIONS[op], args


def _is_one_less(node: Node, y: Node) -> bool:
    return node.op == "sub" and node.args[1] is y and _is_one(node.args[0]) and bool(y.width)


def _is_one(node: Node) -> bool:
    return node.op == "const" and node.what == 1


def _lower(roots: Iterable[Node], known: Callable[[Node], bool]) -> list[_Call]:
    """The operations that make nodes from what is known, in order."""
    roots = list(roots)
    order = walk([n for n in roots if not known(n)], _Known(known))
    uses = Counter(arg for node in order for arg in node.args)
    named = set(roots)

    def alone(node: Node) -> bool:
        return uses[node] == 1 and node not in named and not known(node) and bool(node.args)

    wanted = set(roots)
    calls = []
    for node in reversed(order):
        if node in wanted and node.args:
            operation, args = _choose(node, alone)
            wanted.update(args)
            calls.append(_Call(operation, args, node))
    return calls[::-1]


class _Known(dict[Node, Any]):
    """What ``walk`` leaves out, as a question instead of a list."""

    def __init__(self, known: Callable[[Node], bool]) -> None:
        super().__init__()
        self._known = known

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and self._known(node)


def _is_narrow(node: Node) -> bool:
    """Whether a node is the same for all units of a row, and computed once a row only."""
    if node.op == "leaf":
        key = node.what.key
        summed = node.what.source == "grad" and key[0] == "summand"
        return not node.width or summed or node.what.source == "sum"
    return all(map(_is_narrow, node.args))


def _columns(node: Node) -> int:
    return 1 if _is_narrow(node) else node.width


class _Values:
    """Tensors by node: constants and parameters besides what is computed."""

    def __init__(self, parameters: dict[str, Tensor], like: Tensor) -> None:
        self._parameters = parameters
        self._like = like
        self.known: dict[Node, Tensor] = {}

    def __getitem__(self, node: Node) -> Tensor:
        if node not in self.known:
            self.known[node] = self._made(node)
        return self.known[node]

    def _made(self, node: Node) -> Tensor:
        if node.op == "const":
            return self._like.new_full((), node.what)
        if node.op != "leaf":  # of parameters and constants
            return _OPERATIONS[node.op](*(self[arg] for arg in node.args))
        parameter = self._parameters[node.what.key]
        if not node.width:
            return parameter.reshape(())
        return parameter[node.what.offset : node.what.offset + node.width]

    def compute(self, calls: Iterable[_Call], places: dict[Node, Tensor]) -> None:
        """Run operations for many steps at once, some of them into places of their own."""
        for call in calls:
            args = [self[arg] for arg in call.args]
            place = places.get(call.node)
            if place is None or _is_narrow(call.node) or call.node.op in COMPARISONS:
                self.known[call.node] = call.operation(*args)
                if place is not None:
                    place.copy_(self.known[call.node])
            else:
                self.known[call.node] = call.operation(*args, out=place)


_Bound = tuple[Callable[..., Any], list[Any]]
"""An operation, and its arguments in each step."""


def _bind(operation: Callable[..., Any], *columns: Iterable[Any]) -> _Bound:
    return operation, list(zip(*columns, strict=False))  # some repeat for ever


# Forward -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a number of each step is: "product", "state" (after it), "value", "saved", "own"."""

    kind: str
    key: int
    offset: int
    width: int


@dataclass(frozen=True)
class _Item:
    """What is done in a step: a product, a row's sum, or an operation."""

    kind: str
    key: int = 0
    call: _Call | None = None
    place: _Place | None = None


@dataclass
class _ForwardCode:
    """What a forward pass does before its loop, in each step and after it."""

    program: Program
    save: bool
    items: list[_Item] = field(default_factory=list)
    places: dict[Node, _Place] = field(default_factory=dict)
    orders: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    addends: dict[int, list[tuple[int, int, list[Node]]]] = field(default_factory=dict)
    before: list[_Call] = field(default_factory=list)
    after: list[_Call] = field(default_factory=list)
    saved: dict[Node, int] = field(default_factory=dict)
    products: dict[int, int] = field(default_factory=dict)
    copies: list[tuple[Node, _Place]] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        step = self.program.step
        self._levels: dict[Node, int] = {}
        self._needed = dict.fromkeys(walk(step.roots))
        self._roots = dict.fromkeys(step.roots)
        self._keep()
        self._uses = Counter(arg for node in self._needed for arg in node.args)
        self._uses.update(step.roots)
        known: dict[Node, int] = {}  # what products bring, and with what added to it
        for k in range(len(step.products)):
            known |= dict.fromkeys(self._fold(k), k)
        calls = _lower([*self._roots, *self._pinned], lambda n: n in known or self._level(n) < 2)
        self._locate(calls, known)
        self._order(calls, known)
        self._before(calls)

    def _level(self, node: Node) -> int:
        """0: the same in all steps; 1: known before the loop; 2: not."""
        if node not in self._levels:
            if node.op == "leaf":
                self._levels[node] = {"parameter": 0, "wx": 1}.get(node.what.source, 2)
            else:
                self._levels[node] = max(map(self._level, node.args), default=0)
        return self._levels[node]

    def _keep(self) -> None:
        """What a step must keep: what is asked for, and what that is computed from afterwards."""
        saved = list(self.program.saved) if self.save else []
        self._late = [n for n in saved if n not in self._needed or self._level(n) < 2]
        kept = [n for n in saved if n in self._needed and self._level(n) == 2]
        for node in walk(self._late, self._needed):
            kept += [a for a in node.args if a in self._needed and self._level(a) == 2]
        self._kept = dict.fromkeys(
            n for n in kept if not (n.op == "leaf" and n.what.source == "state")
        )
        self._pinned = {**self._roots, **self._kept}
        self.after = _lower(self._late, lambda n: n in self._needed)

    def _fold(self, k: int) -> list[Node]:
        """Let a product be added to what is known to be added to it; order its columns."""
        step = self.program.step
        leaves = [n for n in self._needed if _is_leaf(n, "product", k)]
        leaves.sort(key=lambda n: n.what.offset)
        rows = step.products[k].weight.rows
        ends = [n.what.offset + n.width for n in leaves]
        tiled = ends and [n.what.offset for n in leaves] == [0, *ends[:-1]] and ends[-1] == rows
        blocks = []
        for leaf in leaves:
            node, addends = leaf, []
            while tiled and node not in self._pinned and self._uses[node] == 1:
                (reader,) = (n for n in self._needed if node in n.args)
                if reader.op != "add" or self._level(other := _other(reader, node)) == 2:
                    break
                addends.append(other)
                node = reader
            readers = [n for n in self._needed if node in n.args]
            kind = readers[0].op if readers and readers[0].op in UNARY | {"add"} else ""
            blocks.append((kind, leaf, node, addends))
        if tiled:
            blocks.sort(key=lambda block: block[0])
        self.orders[k], self.addends[k], offset = [], [], 0
        for _, leaf, node, addends in blocks:
            offset = offset if tiled else leaf.what.offset
            self.places[node] = _Place("product", k, offset, node.width)
            self.addends[k].append((offset, leaf.width, addends))
            self.orders[k].append((leaf.what.offset, offset, leaf.width))
            offset += leaf.width
        self.products[k] = rows
        return [node for _, _, node, _ in blocks]

    def _locate(self, calls: list[_Call], known: dict[Node, int]) -> None:
        """Give each node its place: its argument's if that is done with, else one of its own."""
        uses = Counter(arg for call in calls for arg in call.args)
        chains: dict[Node, list[Node]] = {node: [node] for node in known}
        step = self.program.step
        owners: dict[Node, _Place] = {}
        for p, node in enumerate(step.state):
            owners.setdefault(node, _Place("state", p, 0, node.width))
        for k, product in enumerate(step.products):
            if self._is_value(k):
                owners.setdefault(product.value, _Place("value", k, 0, product.value.width))
        for call in calls:
            node = call.node
            chain = [node]
            if node not in owners and node.op not in COMPARISONS:
                for arg in call.args:
                    if (
                        arg in chains
                        and uses[arg] == call.args.count(arg) == 1
                        and arg not in self._pinned
                        and arg.op not in COMPARISONS
                        and _columns(arg) == _columns(node)
                    ):
                        chain = chains[arg]
                        chain.append(node)
                        break
            chains[node] = chain
        for node, chain in chains.items():
            if chain[0] is not node:
                continue
            place = self.places.get(node) or owners.get(node)
            if place is None and self._kept.keys() & set(chain) and node.op not in COMPARISONS:
                place = _Place("saved", 0, self.size, _columns(node))
                self.size += _columns(node)
            if place is None:
                place = _Place("own", node.serial, 0, _columns(node))
            self.places |= dict.fromkeys(chain, place)
        for node in self._needed:
            if node.op == "leaf" and node.what.source == "sum":
                self.places[node] = _Place("own", node.serial, 0, 1)
        for p, node in enumerate(step.state):
            self._copy_to(node, _Place("state", p, 0, node.width))
        for k, product in enumerate(step.products):
            if self._is_value(k):
                self._copy_to(product.value, _Place("value", k, 0, product.value.width))
        self._place_saved()

    def _is_value(self, k: int) -> bool:
        return self.program.part_of(k) is None

    def _copy_to(self, node: Node, place: _Place) -> None:
        if self.places.get(node) != place:
            self.copies.append((node, place))

    def _place_saved(self) -> None:
        """Columns of what is saved: whole products where one of their columns is."""
        moved: dict[int, int] = {}
        for node in self._kept:
            place = self.places.get(node)
            if place and place.kind == "product":
                moved.setdefault(place.key, self.size)
                if moved[place.key] == self.size:
                    self.size += self.products[place.key]
                self.saved[node] = moved[place.key] + place.offset
            elif place and place.kind == "saved":
                self.saved[node] = place.offset
            elif not (place and place.kind in ("state", "value")) or node in self.program.saved:
                self.saved[node] = self.size
                if not (place and place.kind in ("state", "value")):
                    self.copies.append((node, _Place("saved", 0, self.size, _columns(node))))
                self.size += _columns(node)
        self.inside = moved
        for node in self._late:
            self.saved[node] = self.size
            self.size += _columns(node)

    def _order(self, calls: list[_Call], known: dict[Node, int]) -> None:
        """Order what a step does; the same operation on neighbouring columns is one."""
        step = self.program.step
        waiting: list[tuple[_Item, set[Node], list[Node]]] = []
        for k, product in enumerate(step.products):
            made = [n for n, owner in known.items() if owner == k]
            if made:
                waiting.append((_Item("product", k), {product.value}, made))
        for k, node in enumerate(step.sums):
            leaves = [n for n in self.places if _is_leaf(n, "sum", k)]
            waiting += [(_Item("sum", leaf.serial), {node}, [leaf]) for leaf in leaves]
        for call in calls:
            item = _Item("call", 0, call, self.places[call.node])
            waiting.append((item, set(call.args), [call.node]))
        done: set[Node] = set()

        def is_there(node: Node) -> bool:
            is_state = node.op == "leaf" and node.what.source == "state"
            return node in done or is_state or self._level(node) < 2

        copies = list(self.copies)
        while waiting:
            ready = [w for w in waiting if all(map(is_there, w[1]))]
            plain = [w for w in ready if not (w[0].call and w[0].call.node.op in UNARY)]
            taken = plain or ready
            waiting = [w for w in waiting if w not in taken]
            self.items += [w[0] for w in taken] if plain else _grouped([w[0] for w in taken])
            done.update(node for w in taken for node in w[2])
            for node, place in [c for c in copies if is_there(c[0])]:
                self.items.append(_Item("copy", 0, _Call(_copy, (node,), node), place))
                copies.remove((node, place))
        for node, place in copies:
            self.items.append(_Item("copy", 0, _Call(_copy, (node,), node), place))

    def _before(self, calls: list[_Call]) -> None:
        """What is computed for all steps before the loop."""
        needs = [arg for call in calls for arg in call.args]
        needs += [node for node, _ in self.copies]
        needs += [p.value for p in self.program.step.products]
        needs += self.program.step.sums
        needs += [a for blocks in self.addends.values() for _, _, many in blocks for a in many]
        needs += [arg for call in self.after for arg in call.args] + self._late
        early = [n for n in needs if self._level(n) == 1]
        self.inputs = [n for n in walk(early) if n.op == "leaf" and n.what.source == "wx"]
        self.before = _lower(dict.fromkeys(early), lambda n: n.op == "leaf" or self._level(n) != 1)


def _is_leaf(node: Node, source: str, key: Any) -> bool:
    return node.op == "leaf" and (node.what.source, node.what.key) == (source, key)


def _other(node: Node, arg: Node) -> Node:
    return node.args[1] if node.args[0] is arg else node.args[0]


def _grouped(items: list[_Item]) -> list[_Item]:
    """One item in place of several that do the same to neighbouring columns of a product."""
    groups: list[_Item] = []

    def sorting(item: _Item) -> Any:
        assert item.call is not None
        assert item.place is not None
        return item.call.node.op, item.place.kind, item.place.key, item.place.offset

    for item in sorted(items, key=sorting):
        last = groups[-1] if groups else None
        if last and last.place and last.call and item.place and item.call:
            a, b = last.place, item.place
            if (
                last.call.node.op == item.call.node.op
                and a.kind == b.kind == "product"
                and a.key == b.key
                and a.offset + a.width == b.offset
            ):
                place = _Place("product", a.key, a.offset, a.width + b.width)
                groups[-1] = _Item("group", 0, item.call, place)
                continue
        groups.append(item)
    return groups


class _Forward:
    """One forward pass: tensors are (T, B, ...) here."""

    def __init__(
        self, code: _ForwardCode, wx: Tensor, parameters: dict[str, Tensor], order: Order
    ) -> None:
        self._code, self._wx, self._order = code, wx, order
        self._parameters = parameters
        self._values = _Values(parameters, wx)
        self._views: dict[Any, Sequence[Tensor]] = {}
        self._own: dict[int, Tensor] = {}
        step = code.program.step
        self._T, self._B = T, B = wx.shape[1], wx.shape[0]
        self._saved = wx.new_empty(T, B, max(1, code.size))
        self._products = {
            k: self._saved[..., code.inside[k] : code.inside[k] + rows]
            if k in code.inside
            else wx.new_empty(T, B, rows)
            for k, rows in code.products.items()
        }
        self._states = [wx.new_empty(T + 1, B, size) for size in step.state_sizes]
        self._inputs = {
            k: wx.new_empty(T, B, product.weight.columns)
            for k, product in enumerate(step.products)
            if code.program.part_of(k) is None
        }
        first, second = slice(0, T), slice(1, T + 1)
        self._ahead, self._behind = (first, second) if order.reverse else (second, first)
        self._befores = [part[self._behind] for part in self._states]
        if order.resets is not None:
            self._befores = [torch.empty_like(part) for part in self._befores]

    def run(self, initial: State, start: State) -> tuple[Tensor, State, Kept | None]:
        """Outputs, the state at the end, and what is kept."""
        order, T = self._order, self._T
        for part, given in zip(self._states, initial, strict=True):
            part[T if order.reverse else 0].copy_(given)
        self._begin()
        calls = [*self._resets(start), *map(self._bound, self._code.items), *self._held()]
        for t in order.steps(T):
            for operation, args in calls:
                operation(*args[t])
        return self._end()

    def _begin(self) -> None:
        wx = self._wx.transpose(0, 1)
        known = self._values.known
        for node in self._code.inputs:
            offset = node.what.offset
            known[node] = wx[..., offset : offset + node.width]
        self._values.compute(self._code.before, {})
        for k, blocks in self._code.addends.items():
            for offset, width, many in blocks:
                place = self._products[k][..., offset : offset + width]
                if not many:
                    place.zero_()
                elif len(many) == 1:
                    place.copy_(self._values[many[0]])
                else:
                    torch.add(self._values[many[0]], self._values[many[1]], out=place)
                    for node in many[2:]:
                        place.add_(self._values[node])

    def _whole(self, place: _Place) -> Tensor:
        sources: dict[str, Callable[[], Tensor]] = {
            "product": lambda: self._products[place.key],
            "state": lambda: self._states[place.key][self._ahead],
            "value": lambda: self._inputs[place.key],
            "saved": lambda: self._saved,
        }
        return sources[place.kind]()[..., place.offset : place.offset + place.width]

    def _at(self, place: _Place, dtype: torch.dtype | None = None) -> Sequence[Tensor]:
        """A place in each step."""
        if place not in self._views:
            if place.kind == "own":
                one = self._wx.new_empty(self._B, place.width, dtype=dtype or self._wx.dtype)
                self._views[place] = [one] * self._T
            else:
                self._views[place] = self._whole(place).unbind(0)
        return self._views[place]

    def _of(self, node: Node) -> Sequence[Tensor]:
        """A node in each step."""
        if node not in self._views:
            level = self._code._level(node)
            if node in self._code.places:
                dtype = torch.bool if node.op in COMPARISONS else None
                self._views[node] = self._at(self._code.places[node], dtype)
            elif level == 2:
                part, offset = self._befores[node.what.key], node.what.offset
                self._views[node] = part[..., offset : offset + node.width].unbind(0)
            elif level == 1:
                self._views[node] = self._values[node].unbind(0)
            else:
                self._views[node] = [self._values[node]] * self._T
        return self._views[node]

    def _bound(self, item: _Item) -> _Bound:
        """An operation, and its arguments in each step."""
        if item.kind == "product":
            product = self._code.program.step.products[item.key]
            weight = product.weight
            matrix = self._parameters[weight.name][weight.offset : weight.offset + weight.rows]
            order = self._code.orders[item.key]
            if any(source != target for source, target, _ in order):
                matrix = torch.cat([matrix[source : source + rows] for source, _, rows in order])
            matrix = matrix.t()
            if self._T >= _WORTH_A_COPY:
                matrix = matrix.contiguous()
            outs = self._products[item.key].unbind(0)
            return _bind(torch.Tensor.addmm_, outs, self._of(product.value), repeat(matrix))
        if item.kind == "sum":
            (leaf,) = (n for n in self._code.places if n.serial == item.key)
            summand = self._code.program.step.sums[leaf.what.key]
            return _bind(_row_sum, self._of(summand), self._of(leaf))
        assert item.call is not None
        assert item.place is not None
        if item.kind == "group":
            at = self._at(item.place)
            return _bind(item.call.operation, at, at)
        dtype = torch.bool if item.call.node.op in COMPARISONS and item.kind == "call" else None
        columns = [self._of(arg) for arg in item.call.args]
        return _bind(item.call.operation, *columns, self._at(item.place, dtype))

    def _resets(self, start: State) -> list[_Bound]:
        if self._order.resets is None:
            return []
        rows = self._order.resets.t().unsqueeze(-1).unbind(0)
        return [
            _bind(_OPERATIONS["where"], rows, repeat(new), part[self._behind], before)
            for new, part, before in zip(start, self._states, self._befores, strict=True)
        ]

    def _held(self) -> list[_Bound]:
        """Where a row has come to its end, its state stays."""
        valid = self._valid()
        if valid is None:
            return []
        return [
            _bind(
                _OPERATIONS["where"],
                valid,
                part[self._ahead],
                part[self._behind],
                part[self._ahead],
            )
            for part in self._states
        ]

    def _valid(self) -> Tensor | None:
        return _valid(self._order, self._T)

    def _end(self) -> tuple[Tensor, State, Kept | None]:
        code, valid = self._code, self._valid()
        outputs = self._states[0][self._ahead]
        y = fused.empty(self._wx, outputs.shape[-1])
        y.transpose(0, 1).copy_(outputs)
        last = 0 if self._order.reverse else self._T
        final = tuple(part[last].clone() for part in self._states)
        kept = self._keep(valid) if code.save else None
        if valid is not None:
            y.masked_fill_(~valid.transpose(0, 1), 0)
        return y, final, kept

    def _keep(self, valid: Tensor | None) -> Kept:
        code, known = self._code, self._values.known
        for node, place in code.places.items():
            if place.kind != "own":
                known[node] = self._whole(place)
        for node in walk([*code.program.step.roots, *code.program.saved]):
            if node.op == "leaf" and node.what.source == "state":
                offset = node.what.offset
                known[node] = self._befores[node.what.key][..., offset : offset + node.width]
        saved = {
            node: self._saved[..., offset : offset + _columns(node)]
            for node, offset in code.saved.items()
        }
        made = {call.node for call in code.after}
        for node, columns in saved.items():
            at = code.places.get(node)
            if node not in made and (at is None or at.kind in ("state", "value")):
                columns.copy_(self._values[node])
        self._values.compute(code.after, saved)
        if valid is not None:
            for tensor in (*self._befores, *self._inputs.values()):
                tensor.masked_fill_(~valid, 0)
        befores = {
            p: part.transpose(0, 1)
            for p, part in enumerate(self._befores)
            if p in code.program.befores
        }
        values = {k: self._inputs[k].transpose(0, 1) for k in code.program.values}
        return Kept(befores, values, self._saved.transpose(0, 1))


_WORTH_A_COPY = 32  # steps from which on a product by a turned matrix pays for turning it


def _valid(order: Order, T: int) -> Tensor | None:
    """Which steps are within the lengths, (T, B, 1) boolean; None if all are."""
    if order.lengths is None:
        return None
    steps = torch.arange(T, device=order.lengths.device)
    return (steps[:, None] < order.lengths).unsqueeze(-1)


# Backward ----------------------------------------------------------------------------------------

_Form = dict[Node, Node]
"""A sum of gradients, each times something known before: coefficients by gradient."""


@dataclass(frozen=True)
class _Sum:
    """A form that is stored: ``key`` names a buffer's columns, or the gradient it makes."""

    key: Any
    offset: int
    width: int
    form: _Form
    add: bool = False
    source: tuple[Buffer, int] | None = None


@dataclass(frozen=True)
class _Blocks:
    """Neighbouring columns that are one gradient times something else each."""

    buffer: Buffer
    offset: int
    width: int
    base: Node
    coefficients: tuple[Node, ...]


def _blocks(sums: list[_Sum]) -> list[_Sum | _Blocks]:
    """The same, with neighbours put together."""
    found: list[_Sum | _Blocks] = []
    for one in sorted(sums, key=lambda s: (s.key.kind, s.key.key, s.offset)):
        last = found[-1] if found else None
        if one.add or len(one.form) != 1:
            found.append(one)
            continue
        ((base, coefficient),) = one.form.items()
        block = _Blocks(one.key, one.offset, one.width, base, (coefficient,))
        if (
            isinstance(last, _Blocks)
            and (last.buffer, last.base, last.width) == (block.buffer, base, block.width)
            and last.offset + len(last.coefficients) * last.width == block.offset
        ):
            many = (*last.coefficients, coefficient)
            found[-1] = _Blocks(last.buffer, last.offset, last.width, base, many)
        else:
            found.append(block)
    return found


@dataclass
class _StageCode:
    """What a stage does in each step of a backward pass, in order.

    Attributes:
        values: Products whose values' gradients come in: what makes these from the products'.
        summands: Sums whose summands' gradients come in.
        made: Gradients that later ones are made of, each from a form or by an operation.
        stores: Forms that other stages, products and steps need.
        carries: Forms by state part, for the step before.
    """

    values: list[int]
    summands: list[int]
    made: list[tuple[Node, _Form | None]]
    stores: list[_Sum | _Blocks]
    carries: list[_Sum]


class _BackwardCode:
    """A backward pass as sums of gradients times coefficients, which are known before the loop.

    Attributes:
        stages: What each stage does in a step.
        later: What is stored after the loop, from all steps' gradients at once.
        units: Parts of the gradient of each unit's parameter that are not already stored.
        totals: Where the rest of it is stored: a buffer and its first column.
    """

    def __init__(self, program: Program, masked: bool) -> None:
        self.program, self.masked = program, masked
        self.graph: Graph = program.step.graph
        self.valid = self.graph.leaf(Columns("valid", None), 0)
        self._late: dict[Node, bool] = {}
        self._forms: dict[Node, _Form] = {}
        self._made: dict[Node, _Form | None] = {}
        self.stages: list[_StageCode] = []
        self.later: list[_Sum] = []
        self.units: list[_Sum] = []
        self.totals: list[tuple[int, Buffer, int]] = []
        stored: dict[Node, tuple[Buffer, int]] = {}
        for number in range(len(program.backward)):
            self._stage(number, stored)
        self._early()

    def _early(self) -> None:
        """What is computed for many steps at once, before the loop comes to them."""
        wanted: dict[Node, None] = {}
        self.blocks: list[_Blocks] = []
        for stage in self.stages:
            self.blocks += [store for store in stage.stores if isinstance(store, _Blocks)]
            for sum_ in [s for s in [*stage.stores, *stage.carries] if isinstance(s, _Sum)]:
                wanted |= dict.fromkeys(sum_.form.values())
            for node, form in stage.made:
                early = [a for a in node.args if not self._is_late(a)]
                wanted |= dict.fromkeys(early if form is None else form.values())
        for sum_ in (*self.later, *self.units):
            wanted |= dict.fromkeys(sum_.form.values())
        wanted |= dict.fromkeys(c for block in self.blocks for c in block.coefficients)
        nodes = walk(list(wanted), self.program.saved)
        self.leaves = [n for n in nodes if n.op == "leaf" and n.what.source == "state"]
        constant: set[Node] = set()
        for node in nodes:
            is_parameter = node.op == "leaf" and node.what.source == "parameter"
            if node.op == "const" or is_parameter or (node.args and constant.issuperset(node.args)):
                constant.add(node)
        self.constant = constant
        saved = self.program.saved
        self.early = _lower(wanted, lambda n: n in saved or n in constant or n.op == "leaf")

    def _stage(self, number: int, stored: dict[Node, tuple[Buffer, int]]) -> None:
        stage = self.program.backward[number]
        sums: dict[str, list[_Sum]] = {"carry": [], "unit": [], "dwx": [], "": []}
        self._made, self._forms = {}, {}
        for store in stage.stores:
            kind, node = store.buffer.kind, store.node
            if kind == "dz" and not store.add and node is not None:
                stored.setdefault(node, (store.buffer, store.offset))
        for store in stage.stores:
            kind, key, node = store.buffer.kind, store.buffer.key, store.node
            if kind == "dwx" and self.program.shared:
                continue  # it is a product's
            if kind == "unit" and node in stored:
                self.totals.append((key, *stored[node]))
                continue
            source = None
            if kind == "dwx" and node in stored and not store.add:
                source = stored[node]
            form = {} if source else self._form(node)
            form = self._held(form, key, stage) if kind == "carry" else self._masked(form)
            place = key if kind in ("carry", "unit") else store.buffer
            found = _Sum(place, store.offset, stage.width, form, store.add, source)
            sums[kind if kind in sums else ""].append(found)
        self.later += sums["dwx"]
        self.units += sums["unit"]
        self.stages.append(
            _StageCode(
                [p.product for p in stage.products if self.program.part_of(p.product) is None],
                list(stage.sums),
                list(self._made.items()),
                _blocks(sums[""]),
                sums["carry"],
            )
        )

    def _masked(self, form: _Form) -> _Form:
        """Nothing where a row is past its end."""
        if not self.masked:
            return form
        zero = self.graph.const(0)
        return {base: self.graph.apply("where", self.valid, c, zero) for base, c in form.items()}

    def _held(self, form: _Form, part: int, stage: Any) -> _Form:
        """A state's own gradient where a row is past its end."""
        if not self.masked:
            return form
        form = self._masked(form)
        if part in stage.state:
            width = self.program.step.state_sizes[part]
            grad = self.graph.leaf(Columns("grad", ("state", part)), width)
            zero, one = self.graph.const(0), self.graph.const(1)
            own = form.get(grad)
            inside = zero if own is None else own.args[1]
            form[grad] = self.graph.apply("where", self.valid, inside, one)
        return form

    def _is_late(self, node: Node) -> bool:
        if node not in self._late:
            is_grad = node.op == "leaf" and node.what.source == "grad"
            saved = node in self.program.saved
            self._late[node] = is_grad or (not saved and any(map(self._is_late, node.args)))
        return self._late[node]

    def _form(self, node: Node | None) -> _Form:
        if node is None or node.op == "const":
            return {}
        if node not in self._forms:
            self._forms[node] = self._formed(node)
        return self._forms[node]

    def _formed(self, node: Node) -> _Form:
        apply, one = self.graph.apply, self.graph.const(1)
        if node.op == "leaf" or node in self._made:
            return {node: one}
        args = node.args
        if node.op in ("add", "sub") and all(self._is_late(a) or a.op == "const" for a in args):
            form = dict(self._form(args[0]))
            for base, c in self._form(args[1]).items():
                form[base] = apply(node.op, form.get(base, self.graph.const(0)), c)
            return form
        if node.op == "where" and not self._is_late(args[0]):
            zero = self.graph.const(0)
            some, others = self._form(args[1]), self._form(args[2])
            return {
                base: apply("where", args[0], some.get(base, zero), others.get(base, zero))
                for base in {**some, **others}
            }
        if node.op == "neg":
            return {base: apply("neg", c) for base, c in self._form(args[0]).items()}
        late = [a for a in args if self._is_late(a)]
        if len(late) == 1 and (node.op == "mul" or (node.op == "div" and late[0] is args[0])):
            form = self._single(late[0])
            early = _other(node, late[0])
            return {base: apply(node.op, c, early) for base, c in form.items()}
        self._made[node] = None
        for arg in args:
            if self._is_late(arg):
                self._make(arg)
        self._made[node] = self._made.pop(node)  # after what it is made of
        return {node: one}

    def _single(self, node: Node) -> _Form:
        """A form of one term: a sum counts as a gradient of its own."""
        form = self._form(node)
        if len(form) <= 1:
            return form
        self._make(node)
        return self._forms[node]

    def _make(self, node: Node) -> None:
        form = self._form(node)
        if node not in form:
            self._made[node] = form
            self._forms[node] = {node: self.graph.const(1)}


class _Backward:
    """One backward pass: tensors are (T, B, ...) here."""

    def __init__(
        self, code: _BackwardCode, kept: Kept, parameters: dict[str, Tensor], order: Order
    ) -> None:
        self._code, self._order, self._parameters = code, order, parameters
        self._saved = kept.saved.transpose(0, 1)
        self._befores = {p: part.transpose(0, 1) for p, part in kept.befores.items()}
        self._inputs = {k: value.transpose(0, 1) for k, value in kept.values.items()}
        self._T, self._B = self._saved.shape[:2]
        program = code.program
        kept_code = _once(("forward", True), program, lambda: _ForwardCode(program, True))
        self._saved_at = {n: kept_code.saved[n] for n in program.saved if n in kept_code.saved}
        self._inputs_at = {
            n: kept_code.places[n].key for n in program.saved if n not in kept_code.saved
        }
        self._valid = _valid(order, self._T)
        new = self._saved.new_empty
        self._dwx = new(self._T, self._B, program.step.wx_size)
        if Buffer("dwx") in program.gaps:
            self._dwx.zero_()
        self._dz = {}
        for k, product in enumerate(program.step.products):
            rows = product.weight.rows
            self._dz[k] = self._dwx if k in program.shared else new(self._T, self._B, rows)
            if Buffer("dz", k) in program.gaps:
                self._dz[k].zero_()
        self._units = [self._saved.new_zeros(width) for width in program.units.values()]
        self._matrices = {
            k: parameters[w.name][w.offset : w.offset + w.rows]
            for k, w in enumerate(product.weight for product in program.step.products)
        }

    def run(self, grad_y: Tensor | None, grad_final: Sequence[Tensor | None]) -> Gradients:
        """All gradients."""
        T, reverse = self._T, self._order.reverse
        new = self._saved.new_zeros
        sizes = self._code.program.step.state_sizes
        self._start = [new(self._B, size) for size in sizes] if self._resets() is not None else []
        carried = [
            new(self._B, size) if grad is None else grad
            for size, grad in zip(sizes, grad_final, strict=True)
        ]
        outputs = None if grad_y is None else grad_y.transpose(0, 1)
        n = max(1, _CHUNK // (self._B * max(sizes) * self._saved.element_size()))
        firsts = range(0, T, n)
        for first in firsts if reverse else reversed(firsts):
            steps = slice(first, min(first + n, T))
            carried = _Chunk(self, steps, outputs, carried).run()
        totals: dict[Buffer, Tensor] = {}
        for unit, buffer, offset in self._code.totals:
            if buffer not in totals:
                totals[buffer] = self._dz[buffer.key].flatten(0, 1).sum(0)
            width = len(self._units[unit])
            self._units[unit] += totals[buffer][offset : offset + width]
        return Gradients(
            self._dwx.transpose(0, 1),
            {k: dz.transpose(0, 1) for k, dz in self._dz.items()},
            self._units,
            tuple(carried),
            tuple(self._start),
        )

    def _resets(self) -> Tensor | None:
        """Where the state starts anew, (T, B, 1) boolean; None if nowhere."""
        if self._order.resets is None:
            return None
        rows = self._order.resets.t().unsqueeze(-1)
        return rows if self._valid is None else rows & self._valid


class _Chunk:
    """Some steps of a backward pass, (n, B, ...), whose coefficients stay in the cache."""

    def __init__(
        self, whole: _Backward, steps: slice, grad_y: Tensor | None, carried: list[Tensor]
    ) -> None:
        self._whole, self._steps = whole, steps
        self._code = whole._code
        self._n = n = steps.stop - steps.start
        self._reverse = whole._order.reverse
        self._new = new = whole._saved.new_empty
        self._B = whole._B
        self._views: dict[Any, Sequence[Tensor]] = {}
        self._gradients: dict[Node, Tensor] = {}
        self._buffers: dict[Buffer, Tensor] = {}
        resets = whole._resets()
        self._resets = None if resets is None else resets[steps]
        self._valid = None if whole._valid is None else whole._valid[steps]
        self._grad_y = grad_y if grad_y is None else grad_y[steps]
        if self._grad_y is not None and self._valid is not None:
            self._grad_y = self._grad_y.masked_fill(~self._valid, 0)
        self._carry = [new(n + 1, self._B, part.shape[-1]) for part in carried]
        first, second = slice(0, n), slice(1, n + 1)
        self._own, self._next = (first, second) if self._reverse else (second, first)
        self._fresh = {p for p in range(len(carried)) if p or self._resets is not None}
        if 0 not in self._fresh:
            self._carry[0].zero_()
            if self._grad_y is not None:
                self._carry[0][self._own].copy_(self._grad_y)
        self._carried = carried

    def run(self) -> list[Tensor]:
        """Run them: the gradients that leave through the state before them."""
        self._compute()
        calls = [call for stage in self._code.stages for call in self._stage(stage)]
        calls += self._between()
        begins = 0 if self._reverse else self._n
        for p, (part, came) in enumerate(zip(self._carry, self._carried, strict=True)):
            if p in self._fresh:
                part.zero_()
            if p == 0 and self._resets is None:
                part[begins].add_(came)
            else:
                part[begins].copy_(came)
        if self._resets is not None and self._grad_y is not None:
            self._carry[0][begins].add_(self._grad_y[0 if self._reverse else -1])
        for i in range(self._n) if self._reverse else reversed(range(self._n)):
            for operation, args in calls:
                operation(*args[i])
        self._finish()
        return [part[self._n if self._reverse else 0] for part in self._carry]

    def _compute(self) -> None:
        """Coefficients, those of neighbouring columns side by side."""
        whole, steps, code = self._whole, self._steps, self._code
        self._values = _Values(whole._parameters, whole._saved)
        known = self._values.known
        for node, offset in whole._saved_at.items():
            columns = whole._saved[steps, :, offset : offset + _columns(node)]
            known[node] = columns != 0 if node.op in COMPARISONS else columns
        for node, k in whole._inputs_at.items():
            known[node] = whole._inputs[k][steps]
        for node in code.leaves:
            offset = node.what.offset
            known[node] = whole._befores[node.what.key][steps, :, offset : offset + node.width]
        if self._valid is not None:
            known[code.valid] = self._valid
        places: dict[Node, Tensor] = {}
        made = {call.node for call in code.early}
        copies = []
        self._side_by_side: dict[_Blocks, Tensor] = {}
        for block in code.blocks:
            sides = self._new(self._n, self._B, len(block.coefficients), block.width)
            self._side_by_side[block] = sides
            for i, node in enumerate(block.coefficients):
                if node in made and node not in places:
                    places[node] = sides[:, :, i]
                else:
                    copies.append((sides[:, :, i], node))
        self._values.compute(code.early, places)
        for place, node in copies:
            place.copy_(self._values[node])

    def _stage(self, stage: _StageCode) -> list[_Bound]:
        step = self._code.program.step
        calls: list[_Bound] = []
        for k in stage.values:
            product = step.products[k]
            out = self._new(self._n, self._B, product.weight.columns)
            self._gradients[_grad(self._code, ("value", k), product.value)] = out
            matrix = repeat(self._whole._matrices[k])
            calls.append(_bind(_OPERATIONS["mm"], self._dz(k), matrix, out.unbind(0)))
        for k in stage.summands:
            out = self._new(self._n, self._B, 1)
            self._gradients[_grad(self._code, ("summand", k), step.sums[k])] = out
            shares = self._buffer(Buffer("dsum", k)).unbind(0)
            calls.append(_bind(_row_sum, shares, out.unbind(0)))
        for node, form in stage.made:
            out = self._new(self._n, self._B, _columns(node))
            if form is None:
                args = map(self._of, node.args)
                calls.append(_bind(_OPERATIONS[node.op], *args, out.unbind(0)))
            else:
                calls += self._summed(out.unbind(0), form, add=False)
            self._gradients[node] = out
        for store in stage.stores:
            if isinstance(store, _Blocks):
                many, width = len(store.coefficients), store.width
                whole = self._buffer(store.buffer)
                out = whole[..., store.offset : store.offset + many * width]
                out = out.unflatten(-1, (many, width))
                base = self._gradient(store.base).unsqueeze(2)
                sides = self._side_by_side[store].unbind(0)
                calls.append(_bind(_OPERATIONS["mul"], base.unbind(0), sides, out.unbind(0)))
            else:
                out = self._buffer(store.key)[..., store.offset : store.offset + store.width]
                calls += self._summed(out.unbind(0), store.form, store.add)
        for carry in stage.carries:
            if carry.form:
                out = self._carry[carry.key][self._next]
                calls += self._summed(out.unbind(0), carry.form, carry.key not in self._fresh)
                self._fresh.discard(carry.key)
        return calls

    def _between(self) -> list[_Bound]:
        """From a step to the one before it: products, and where a state started anew."""
        calls: list[_Bound] = []
        program = self._code.program
        for k in range(len(program.step.products)):
            part = program.part_of(k)
            if part is None:
                continue
            out = self._carry[part][self._next].unbind(0)
            matrix = repeat(self._whole._matrices[k])
            if part in self._fresh:
                self._fresh.discard(part)
                calls.append(_bind(_OPERATIONS["mm"], self._dz(k), matrix, out))
            else:
                calls.append(_bind(torch.Tensor.addmm_, out, self._dz(k), matrix))
        if self._resets is None:
            return calls
        rows = self._resets.unbind(0)
        shares = self._resets.to(self._whole._saved.dtype).unbind(0)
        for carry, start in zip(self._carry, self._whole._start, strict=True):
            out = carry[self._next].unbind(0)
            calls.append(_bind(torch.Tensor.addcmul_, repeat(start), out, shares))
            calls.append(_bind(torch.Tensor.masked_fill_, out, rows, repeat(0)))
        if self._grad_y is not None:
            out = self._carry[0][self._next].unbind(0)
            more = self._grad_y.unbind(0)
            nothing = torch.zeros_like(more[0])  # the next chunk's first step adds its own
            more = (*more[1:], nothing) if self._reverse else (nothing, *more[:-1])
            calls.append(_bind(torch.Tensor.add_, out, more))
        return calls

    def _finish(self) -> None:
        """What no other step needs, from all gradients at once."""
        dwx = self._whole._dwx[self._steps]
        for store in self._code.later:
            place = dwx[..., store.offset : store.offset + store.width]
            if store.source is not None:
                source, first = store.source
                place.copy_(self._buffer(source)[..., first : first + store.width])
                continue
            if not store.add:
                place.zero_()
            for base, coefficient in store.form.items():
                place.addcmul_(self._gradient(base), self._values[coefficient])
        for unit in self._code.units:
            for base, coefficient in unit.form.items():
                share = self._gradient(base) * self._values[coefficient]
                self._whole._units[unit.key] += share.flatten(0, 1).sum(0)

    def _summed(self, out: Sequence[Tensor], form: _Form, add: bool) -> list[_Bound]:
        """Operations that store a form, or add it to what is there."""
        calls: list[_Bound] = []
        plain = [self._of(base) for base, c in form.items() if _is_one(c)]
        weighed = [(self._of(b), self._of(c)) for b, c in form.items() if not _is_one(c)]
        if not add:
            if not form or any(map(_is_narrow, form)):
                calls.append(_bind(torch.Tensor.zero_, out))
            elif plain and weighed:
                calls.append(_bind(_add_product, plain.pop(), *weighed.pop(), out))
            elif len(plain) > 1:
                calls.append(_bind(_OPERATIONS["add"], plain.pop(), plain.pop(), out))
            elif plain:
                calls.append(_bind(_copy, plain.pop(), out))
            else:
                calls.append(_bind(_OPERATIONS["mul"], *weighed.pop(), out))
        calls += [_bind(torch.Tensor.add_, out, one) for one in plain]
        calls += [_bind(torch.Tensor.addcmul_, out, *pair) for pair in weighed]
        return calls

    def _dz(self, k: int) -> Sequence[Tensor]:
        return self._buffer(Buffer("dz", k)).unbind(0)

    def _buffer(self, buffer: Buffer) -> Tensor:
        if buffer.kind == "dz":
            return self._whole._dz[buffer.key][self._steps]
        if buffer not in self._buffers:
            program = self._code.program
            width = (
                program.step.sums[buffer.key].width
                if buffer.kind == "dsum"
                else sum(n.width for n in program.saved)
            )
            self._buffers[buffer] = self._new(self._n, self._B, width)
        return self._buffers[buffer]

    def _gradient(self, node: Node) -> Tensor:
        """A gradient of all steps: what the loop has made, or a leaf."""
        if node not in self._gradients:
            kind, key = node.what.key
            if kind == "state":
                self._gradients[node] = self._carry[key][self._own]
            else:
                crossing = self._buffer(Buffer("dcross"))
                self._gradients[node] = crossing[..., key : key + node.width]
        return self._gradients[node]

    def _of(self, node: Node) -> Sequence[Tensor]:
        """A node in each step."""
        if node not in self._views:
            if self._code._is_late(node):
                self._views[node] = self._gradient(node).unbind(0)
            elif node in self._code.constant:
                self._views[node] = [self._values[node]] * self._n
            else:
                self._views[node] = self._values[node].unbind(0)
        return self._views[node]


def _grad(code: _BackwardCode, key: Any, node: Node) -> Node:
    return code.graph.leaf(Columns("grad", key), node.width)
