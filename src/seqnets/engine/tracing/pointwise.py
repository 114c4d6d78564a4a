"""Tracing of pointwise arithmetic: a table from the operations of aten to functions of a recorder.

Each function builds the node of its operation's result. Where torch's gradient is not that of the
formula, at equal operands of a maximum say, the node is one whose gradient is torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqnets.engine.graph import BINARY, COMPARISONS, UNARY, Graph, Node, Untraceable
from seqnets.engine.tracing.composed import INSTEAD, SHARED_AT_TIES
from seqnets.engine.tracing.meanings import Operation

if TYPE_CHECKING:
    from seqnets.engine.tracing.recorder import Recorder

_Function = Callable[..., Node]
"""From a recorder and an operation's arguments to the node of its result."""

FILLS = {
    "zeros_like", "new_zeros", "zeros", "ones_like", "new_ones", "ones", "full", "full_like",
    "new_full", "scalar_tensor",
}  # fmt: skip
"""Operations that make a tensor of one number."""

LOGICAL = {
    f"{kind}_{name}": op
    for kind in ("bitwise", "logical")
    for name, op in {"and": "mul", "or": "add", "xor": "sub", "not": ""}.items()
}
"""The arithmetic on 1 and 0 that equals each logical operation; nonzero counts as true."""


def pointwise(recorder: Recorder, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
    """The node of a pointwise operation's result."""
    if name not in ARITHMETIC:
        raise Untraceable(f"aten.{name}{instead(name)}")
    if others := kwargs.keys() - {"alpha", "rounding_mode"}:
        raise Untraceable(f"aten.{name} with {', '.join(k for k in kwargs if k in others)}")
    return ARITHMETIC[name](recorder, *args, **kwargs)


def filled(recorder: Recorder, operation: Operation) -> Node:
    """A constant: the number that was passed, unless the tensor's dtype rounds it."""
    name, args, result = operation.name, operation.args, operation.result
    exact = result.dtype in recorder.dtypes
    if exact and name in ("full", "full_like", "new_full"):
        number = args[-1]
    elif exact and name == "scalar_tensor":
        number = args[0]
    else:
        number = result.flatten()[0].item()
    return recorder.as_in(result, recorder.graph.const(number))


def instead(name: str) -> str:
    """The end of a refusal's reason: what to write instead of an operation."""
    return f"; instead: {INSTEAD[name]}" if name in INSTEAD else ""


# Sums and products.


def _add(recorder: Recorder, a: Any, b: Any, alpha: float = 1, *, op: str = "add") -> Node:
    apply, first, second = recorder.graph.apply, recorder.node(a), recorder.node(b)
    if alpha == 1:
        return apply(op, first, second)
    return apply(op, first, apply("mul", second, recorder.graph.const(alpha)))


def _rsub(recorder: Recorder, a: Any, b: Any, alpha: float = 1) -> Node:
    recorder.node(a)  # nodes are numbered in the order of the arguments
    return _add(recorder, b, a, alpha, op="sub")


def _mul(recorder: Recorder, a: Any, b: Any) -> Node:
    if all(isinstance(value, Tensor) and value.dtype == torch.bool for value in (a, b)):
        return ARITHMETIC["bitwise_and"](recorder, a, b)
    return recorder.graph.apply("mul", recorder.node(a), recorder.node(b))


def _div(recorder: Recorder, a: Any, b: Any, rounding_mode: str | None = None) -> Node:
    first, second = recorder.node(a), recorder.node(b)
    if rounding_mode:
        return recorder.whole_quotient(rounding_mode, first, second)
    return recorder.graph.apply("div", first, second)


def whole_quotient(recorder: Recorder, rounding: str, a: Node, b: Node) -> Node:
    """Rounded division, exact up to rounding of the quotient: enough for derivatives."""
    apply, quotient = recorder.graph.apply, recorder.graph.apply("div", a, b)
    if rounding == "floor":
        return apply("floor", quotient)
    is_below = apply("lt", quotient, recorder.graph.const(0))
    below = apply("neg", apply("floor", apply("neg", quotient)))
    return apply("where", is_below, below, apply("floor", quotient))


# Bounds.


def _larger(recorder: Recorder, a: Any, b: Any, *, op: str) -> Node:
    """A maximum or minimum; equal operands share the gradient equally."""
    apply, const = recorder.graph.apply, recorder.graph.const
    first, second = recorder.node(a), recorder.node(b)
    chosen = apply(op, first, second)
    if "const" not in (first.op, second.op):
        return chosen
    even = apply("mul", apply("add", first, second), const(0.5))
    return apply("where", apply("eq", first, second), even, chosen)


def _clamp(recorder: Recorder, x: Any, low: Any = None, high: Any = None) -> Node:
    """At a bound that is a tensor, all gradient goes to ``x``; from torch 2.14 on, between two."""
    apply, node = recorder.graph.apply, recorder.node(x)
    shared = SHARED_AT_TIES and (low is None or high is None)
    for op, bound in (("maximum", low), ("minimum", high)):
        if isinstance(bound, Tensor) and not shared:
            chosen = apply(op, node, recorder.node(bound))
            node = apply("where", apply("eq", node, recorder.node(bound)), node, chosen)
        elif isinstance(bound, Tensor):
            node = _larger(recorder, x, bound, op=op)
        elif bound is not None:
            node = apply(op, node, recorder.node(bound))
    return node


# Powers.

_LARGEST_POWER = 16
_ROOTS = {0.5: "sqrt", -0.5: "rsqrt"}


def _pow(recorder: Recorder, base: Any, exponent: Any) -> Node:
    apply, const = recorder.graph.apply, recorder.graph.const
    if not isinstance(base, Tensor) and base == 2:
        return apply("exp2", recorder.node(exponent))
    if not isinstance(base, Tensor) and base > 0:
        return apply("exp", apply("mul", recorder.node(exponent), const(math.log(base))))
    node = recorder.node(base)
    if not isinstance(exponent, Tensor):
        if exponent in _ROOTS:
            return apply(_ROOTS[exponent], node)
        if exponent == int(exponent) and abs(exponent) <= _LARGEST_POWER:
            power = reduce(partial(apply, "mul"), [node] * abs(int(exponent)), const(1))
            return power if exponent >= 0 else apply("reciprocal", power)
    return _any_power(recorder, node, recorder.number(exponent))


def _any_power(recorder: Recorder, a: Node, p: Node) -> Node:
    """``a ** p`` for any numbers, as the exponential of a logarithm, with C's special cases."""
    apply, const = recorder.graph.apply, recorder.graph.const
    zero, one = const(0), const(1)
    is_zero = apply("eq", a, zero)  # has no logarithm
    base = apply("where", is_zero, one, a)
    power = apply("exp", apply("mul", p, apply("log", apply("abs", base))))
    is_odd = apply("eq", apply("remainder", p, const(2)), one)
    signed = apply("where", is_odd, apply("neg", power), power)
    none = apply("mul", p, apply("log", apply("sign", base)))  # NaN, also as p's gradient
    below = apply("where", apply("eq", apply("floor", p), p), signed, none)
    power = apply("where", apply("lt", base, zero), below, power)
    return apply("where", is_zero, _power_of_zero(recorder.graph, a, is_zero, p), power)


def _power_of_zero(graph: Graph, a: Node, is_zero: Node, p: Node) -> Node:
    """``a ** p`` where a is 0, with torch's gradients: of a root, a's is infinite."""
    apply, const = graph.apply, graph.const
    zero, one, infinite = const(0), const(1), const(math.inf)

    def root(*conditions: Node) -> Node:
        """The root of a where all conditions are true, elsewhere of 1: 0 times infinite is NaN."""
        return apply("sqrt", reduce(lambda x, true: apply("where", true, x, one), conditions, a))

    if p.op == "const":  # neither 0 nor 1
        return infinite if p.what < 0 else root(is_zero) if p.what < 1 else zero
    is_above, is_below_one = apply("gt", p, zero), apply("lt", p, one)
    power = apply("where", is_below_one, root(is_zero, is_above, is_below_one), zero)
    power = apply("where", apply("eq", p, one), a, power)
    power = apply("where", is_above, power, infinite)
    power = apply("where", apply("eq", p, zero), one, power)
    finite = apply("minimum", p, const(1e30))
    return apply("add", power, apply("sub", finite, finite))  # p's gradient is 0 times what comes


# Logic.


def _where(recorder: Recorder, condition: Any, a: Any, b: Any) -> Node:
    """A choice; of two booleans, as one of 1 and 0."""
    apply, node = recorder.graph.apply, recorder.node(condition)
    chosen = apply("where", node, recorder.number(a), recorder.number(b))
    kinds = {value.dtype for value in (a, b) if isinstance(value, Tensor)}
    return apply("ne", chosen, recorder.graph.const(0)) if kinds == {torch.bool} else chosen


def _logical(recorder: Recorder, *values: Any, op: str) -> Node:
    """Arithmetic on 1 and 0; without an operation, whether the value is zero."""
    apply, const = recorder.graph.apply, recorder.graph.const
    numbers = [recorder.truth(value) for value in values]
    if not op:
        return apply("eq", *numbers, const(0))
    return apply("ne", apply(op, *numbers), const(0))


# Derivatives, as torch's autograd calls them.


def _sigmoid_backward(recorder: Recorder, grad: Any, y: Any) -> Node:
    apply, const = recorder.graph.apply, recorder.graph.const
    come_in, out = recorder.node(grad), recorder.node(y)
    return apply("mul", come_in, apply("mul", out, apply("sub", const(1), out)))


def _tanh_backward(recorder: Recorder, grad: Any, y: Any) -> Node:
    apply, const = recorder.graph.apply, recorder.graph.const
    come_in, out = recorder.node(grad), recorder.node(y)
    return apply("mul", come_in, apply("sub", const(1), apply("mul", out, out)))


def _threshold_backward(recorder: Recorder, grad: Any, x: Any, threshold: float) -> Node:
    apply, const = recorder.graph.apply, recorder.graph.const
    come_in, node = recorder.node(grad), recorder.node(x)
    return apply("where", apply("le", node, const(threshold)), const(0), come_in)  # NaN passes


def _same(op: str) -> _Function:
    """An operation that graphs have too."""
    return lambda recorder, *args: recorder.graph.apply(op, *map(recorder.node, args))


ARITHMETIC: dict[str, _Function] = {
    **{op: _same(op) for op in UNARY | BINARY | COMPARISONS},
    "where": _where,
    "sgn": _same("sign"),
    **{name: partial(_logical, op=op) for name, op in LOGICAL.items()},
    **{op: partial(_add, op=op) for op in ("add", "sub")},
    **{op: partial(_larger, op=op) for op in ("maximum", "minimum")},
    "rsub": _rsub,
    "mul": _mul,
    "div": _div,
    "square": lambda recorder, x: _pow(recorder, x, 2),
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda recorder, x, high: _clamp(recorder, x, None, high),
    "sigmoid_backward": _sigmoid_backward,
    "tanh_backward": _tanh_backward,
    "threshold_backward": _threshold_backward,
    "detach": lambda recorder, x: recorder.detached(recorder.node(x)),
}
"""Pointwise operations by name."""
