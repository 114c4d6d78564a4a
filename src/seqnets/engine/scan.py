"""Cells linear in their state, parallel over time: h_t = a_t h_{t-1} + b_t, by a scan.

Which cells these are is read off the traced step: what is made of the state by sums, and by
products with what does not depend on it, is linear. State parts that nothing reads back may be
anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.engine.plans import _once, program_of
from seqnets.engine.request import Request, refusal_of_operations
from seqnets.engine.trace import (
    Columns,
    Graph,
    Node,
    Step,
    Untraceable,
    evaluate,
    walk,
)
from seqnets.typing import State

name = "scan"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    if reason := refusal_of_operations(request):
        return reason
    if request.memory == "lean":
        return "it keeps what each of its operations needs, and can keep no less"
    try:
        program_of(request.cell)
    except Untraceable as reason:
        return f"the step cannot be traced: {reason}"
    try:
        _plan_of(request)
    except Untraceable as reason:
        return f"the step is not linear in the state: {reason}"
    return None


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    plan = _plan_of(request)
    wx = request.cell.project(request.clean_x)
    values = _Values(plan.step, wx, request.cell.tensors())
    valid = None if request.valid is None else request.valid.unsqueeze(-1)
    resets = None if request.resets is None else request.resets.unsqueeze(-1)
    if resets is not None and valid is not None:
        resets = resets & valid
    start, final = request.start, list(request.state)
    afters: dict[int, Tensor] = {}

    for linear in plan.carried:
        p = linear.part
        shape = (*wx.shape[:2], plan.step.state_sizes[p])
        a, b = (values[node].expand(shape) for node in (linear.a, linear.b))
        if valid is not None:
            a, b = torch.where(valid, a, 1), torch.where(valid, b, 0)
        if resets is not None:
            b = torch.where(resets, a * start[p].unsqueeze(1) + b, b)
            a = torch.where(resets, 0, a)
        afters[p] = after = linear_scan(a, b, request.state[p], reverse=request.reverse)
        before = _earlier(after, request.state[p], request.reverse)
        if resets is not None:
            before = torch.where(resets, start[p].unsqueeze(1), before)
        values.know(p, before, after)
        final[p] = after[:, 0 if request.reverse else -1]

    for p, node in enumerate(plan.step.state):
        if p not in afters:
            afters[p] = values[node].expand(*wx.shape[:2], plan.step.state_sizes[p])
            final[p] = _last(request, afters[p], request.state[p])
    y = afters[0].contiguous()
    return (y if valid is None else y.masked_fill(~valid, 0)), tuple(final)


def linear_scan(a: Tensor, b: Tensor, first: Tensor, *, reverse: bool = False) -> Tensor:
    """Every h_t = a_t h_{t-1} + b_t, (B, T, H), in about 3 sqrt(T) operations.

    Args:
        a: What remains of the last step, (B, T, H).
        b: What is new, (B, T, H).
        first: The h before the first step, (B, H).
        reverse: Whether time runs backwards.
    """
    return _Scan.apply(a, b, first, reverse)


class _Scan(torch.autograd.Function):
    """The scan; its derivative is a scan in the other direction, and so is that one's."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
        h = _scan(a, b, first, reverse)
        ctx.save_for_backward(a, h, first)
        ctx.reverse = reverse
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, h, first = ctx.saved_tensors
        nothing = torch.zeros_like(first)
        remains = _earlier(a, nothing, not ctx.reverse)
        total = linear_scan(remains, grad, nothing, reverse=not ctx.reverse)
        begins = -1 if ctx.reverse else 0
        grad_first = a[:, begins] * total[:, begins] if ctx.needs_input_grad[2] else None
        return total * _earlier(h, first, ctx.reverse), total, grad_first, None


def _scan(a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """Chunks side by side, the rest that fills no chunk after them."""
    T = a.shape[1]
    size = _chunk_size(a)
    whole = T // size * size
    parts = [(slice(0, whole), size), (slice(whole, T), T - whole)]
    h = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    for steps, n in reversed(parts) if reverse else parts:
        if steps.stop > steps.start:
            first = _scan_chunks(a[:, steps], b[:, steps], first, h[:, steps], n, reverse)
    return h


def _chunk_size(a: Tensor) -> int:
    """One chunk where a step's rows are work enough for an operation."""
    B, T, H = a.shape
    return T if a.device.type == "cpu" and B * H >= _ENOUGH else max(1, round(T**0.5))


_ENOUGH = 2**12  # numbers: an operation then takes longer than calling it (measured)


def _scan_chunks(
    a: Tensor, b: Tensor, first: Tensor, out: Tensor, size: int, reverse: bool
) -> Tensor:
    """Each chunk as if it began with zero, then all that flows through it; returns the last h."""
    a, b, h = (tensor.unflatten(1, (-1, size)) for tensor in (a, b, out))
    order = range(size)[::-1] if reverse else range(size)
    a_at, b_at, h_at = a.unbind(2), b.unbind(2), h.unbind(2)
    if a.shape[1] == 1:
        before = first.unsqueeze(1)
        for i in order:
            before = torch.addcmul(b_at[i], a_at[i], before, out=h_at[i])
        return before.squeeze(1)

    through = torch.empty(a.shape, dtype=a.dtype, device=a.device)  # the product of a so far
    through_at = through.unbind(2)
    h_at[order[0]].copy_(b_at[order[0]])
    through_at[order[0]].copy_(a_at[order[0]])
    for last, i in pairwise(order):
        torch.addcmul(b_at[i], a_at[i], h_at[last], out=h_at[i])
        torch.mul(a_at[i], through_at[last], out=through_at[i])
    h_end, through_end = h_at[order[-1]].unbind(1), through_at[order[-1]].unbind(1)
    chunks = range(len(h_end))
    begins = [first] * len(h_end)
    for c in reversed(chunks) if reverse else chunks:
        begins[c] = first
        first = torch.addcmul(h_end[c], through_end[c], first)
    h.addcmul_(through, torch.stack(begins, 1).unsqueeze(2))
    return first


def _earlier(h: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """What was there before each step, (B, T, H)."""
    first = first.unsqueeze(1)
    return torch.cat([h[:, 1:], first] if reverse else [first, h[:, :-1]], 1)


def _last(request: Request, after: Tensor, initial: Tensor) -> Tensor:
    """The value after each row's last valid step."""
    if request.lengths is None:
        return after[:, 0 if request.reverse else -1]
    if request.reverse:
        last = after[:, 0]
    else:
        at = (request.lengths - 1).clamp(min=0)[:, None, None]
        last = after.take_along_dim(at, 1).squeeze(1)
    return torch.where((request.lengths > 0)[:, None], last, initial)


@dataclass(frozen=True)
class _Linear:
    """A state part that becomes ``a`` times itself plus ``b``."""

    part: int
    a: Node
    b: Node


@dataclass(frozen=True)
class _Plan:
    """A step, and the state parts that it reads, each after those its ``a`` and ``b`` depend on."""

    step: Step
    carried: tuple[_Linear, ...]


def _plan_of(request: Request) -> _Plan:
    cell = request.cell
    return _once("scan", cell, lambda: _plan(program_of(cell).step, cell.states))


def _plan(step: Step, names: Sequence[str]) -> _Plan:
    """Find an order in which each part is linear in itself, given those before it.

    Raises:
        Untraceable: There is none; the message tells what is not linear.
    """
    for product in step.products:
        if _read(step, [product.value]):
            raise Untraceable(f"a product by {product.weight.name} depends on it")
    for summand in step.sums:
        if _read(step, [summand]):
            raise Untraceable("a sum over the units of a row depends on it")
    waiting = sorted(_read(step, step.state))
    carried: list[_Linear] = []
    while waiting:
        reasons = []
        for p in waiting:
            try:
                a, b = _Split(step.graph, p, set(waiting), names).of(step.state[p])
            except Untraceable as reason:
                reasons.append(reason)
                continue
            carried.append(_Linear(p, a, b))
            waiting.remove(p)
            break
        else:
            raise reasons[0]
    return _Plan(step, tuple(carried))


def _read(step: Step, nodes: Sequence[Node]) -> set[int]:
    """The state parts that expressions read."""
    leaves = [node.what for node in walk(nodes) if node.op == "leaf"]
    return {leaf.key for leaf in leaves if leaf.source == "state"}


class _Split:
    """Expressions as a times a state part plus b, neither of which depends on what is unknown."""

    def __init__(self, graph: Graph, part: int, unknown: set[int], names: Sequence[str]) -> None:
        self._apply, self._const = graph.apply, graph.const
        self._part, self._unknown, self._names = part, unknown, names
        self._found: dict[Node, tuple[Node, Node]] = {}

    def of(self, node: Node) -> tuple[Node, Node]:
        """The two.

        Raises:
            Untraceable: It is not linear.
        """
        if node not in self._found:
            self._found[node] = self._split(node)
        return self._found[node]

    def _split(self, node: Node) -> tuple[Node, Node]:
        apply, zero, one = self._apply, self._const(0), self._const(1)
        if node.op == "leaf":
            if node.what.source != "state" or node.what.key not in self._unknown:
                return zero, node
            if node.what.key != self._part:
                state, other = self._names[self._part], self._names[node.what.key]
                raise Untraceable(f"'{state}' depends on '{other}', and that on others")
            if node.what.offset:
                raise Untraceable("units of the state depend on others")
            return one, zero
        split = [self.of(arg) for arg in node.args]
        linear = [a is not zero for a, _ in split]
        if not any(linear):
            return zero, node
        (a, b), (c, d) = split[0], split[-1]
        if node.op == "neg":
            return apply("neg", a), apply("neg", b)
        if node.op in ("add", "sub"):
            return apply(node.op, a, c), apply(node.op, b, d)
        if node.op == "mul" and not all(linear):
            if linear[1]:
                (a, b), (c, d) = (c, d), (a, b)
            return apply("mul", a, d), apply("mul", b, d)
        if node.op == "div" and not linear[1]:
            return apply("div", a, d), apply("div", b, d)
        if node.op == "where" and not linear[0]:
            condition = node.args[0]
            (a, b), (c, d) = split[1:]
            return apply("where", condition, a, c), apply("where", condition, b, d)
        raise Untraceable(f"{node.op} of '{self._names[self._part]}'")


class _Values:
    """Nodes of all steps at once, (B, T, H) or what can be broadcast to it."""

    def __init__(self, step: Step, wx: Tensor, parameters: dict[str, Tensor]) -> None:
        self._step, self._wx, self._parameters = step, wx, parameters
        self._known: dict[Node, Any] = {}
        self._products: dict[int, Tensor] = {}

    def know(self, part: int, before: Tensor, after: Tensor) -> None:
        """Fill in a state part, before and after each step."""
        leaf = self._step.graph.leaf(Columns("state", part), before.shape[-1])
        self._known[leaf] = before
        self._known.setdefault(self._step.state[part], after)

    def __getitem__(self, node: Node) -> Tensor:
        for n in walk([node], self._known):
            self._known[n] = (
                self._leaf(n.what, n.width) if n.op == "leaf" else evaluate([n], self._known)[0]
            )
        value = self._known[node]
        return value if isinstance(value, Tensor) else self._wx.new_full((), value)

    def _leaf(self, leaf: Columns, width: int) -> Tensor:
        step = self._step
        if leaf.source == "sum":
            return self[step.sums[leaf.key]].sum(-1, keepdim=True)
        if leaf.source == "wx":
            whole = self._wx
        elif leaf.source == "parameter":
            whole = self._parameters[leaf.key]
        elif leaf.source == "state":
            whole = self._known[
                step.graph.leaf(Columns("state", leaf.key), step.state_sizes[leaf.key])
            ]
        else:
            if leaf.key not in self._products:
                product = step.products[leaf.key]
                first, rows = product.weight.offset, product.weight.rows
                weight = self._parameters[product.weight.name][first : first + rows]
                self._products[leaf.key] = F.linear(self[product.value], weight)
            whole = self._products[leaf.key]
        return whole[..., leaf.offset : leaf.offset + width] if width else whole.reshape(())
