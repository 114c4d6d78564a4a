"""Tracing of custom autograd functions, such as spikes or rounding with surrogate gradients.

The function's backward pass is recorded too. If each input's gradient is a factor times the
incoming one, the function becomes its value plus terms that are zero but have these slopes. For a
function of parameters alone any linear backward pass will do: torch runs it once per call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_iter

from seqnets.engine.graph import Columns, Node, Untraceable
from seqnets.engine.linear import Split
from seqnets.engine.preparation import Call, Operand, OwnGradient
from seqnets.engine.tracing.meanings import Meaning
from seqnets.engine.tracing.placing import Placing
from seqnets.engine.tracing.views import VIEWS


class Surrogates(Placing):
    """A recorder that runs with gradients enabled, so that it sees custom autograd functions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.functions: set[type] = set()
        self._seen: set[Any] = set()

    def give(self, tensor: Tensor, meaning: Meaning | partial[Node]) -> None:
        """Set the meaning of a tensor that exists before the step runs."""
        super().give(tensor, meaning)
        if tensor.is_floating_point():
            tensor.requires_grad_()

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if func is torch.ops.aten.detach.default and self._is_new(args[0].grad_fn):
            result = func(*args)  # inside a function that saves its own output
            if self._is_hoisted(args[0]):
                self.take(result, args[0])
            else:
                self.set_meaning(result, self.graph.apply("detach", self._value(args[0])))
            return result
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._look_at(tensor)
        return super()._result_of(func, name, args, kwargs)

    def meaning_of(self, tensor: Any) -> Meaning:
        """A tensor's meaning, also if a custom function made it."""
        if isinstance(tensor, Tensor):
            self._look_at(tensor)
        return super().meaning_of(tensor)

    def _is_new(self, function: Any) -> bool:
        """Whether a node of autograd is of a custom function that is not recorded yet."""
        return isinstance(function, BackwardCFunction) and function not in self._seen

    def _look_at(self, tensor: Tensor) -> None:
        """Find the meaning of a tensor that did not come from a recorded operation."""
        function = tensor.grad_fn
        if self._is_new(function):
            self._seen.add(function)
            self._derive(tensor, function)
        elif id(tensor) not in self._alive:
            for other in self.sharing(tensor):  # say, a function's saved output
                if (other.shape, other.stride()) == (tensor.shape, tensor.stride()):
                    self.take(tensor, other)

    def _derive(self, tensor: Tensor, function: Any) -> None:
        """Set the meaning of a custom function's output, including its own derivative."""
        kind = function._forward_cls
        wanted = [place for place, needed in enumerate(function.needs_input_grad) if needed]
        given = [self._input(*edge) for edge in function.next_functions if edge[0] is not None]

        def backward(grad: Tensor) -> list[Tensor | None]:
            with self, torch.no_grad():
                found = kind.backward(function, grad)
            found = found if isinstance(found, tuple) else (found,)
            return [found[place] for place in wanted]

        self.functions.add(kind)
        try:
            if self._is_hoisted(tensor):
                self._give_gradient(tensor, given, backward)
            else:
                self.set_meaning(tensor, self._with_slopes(tensor, given, backward))
        except Untraceable as reason:
            raise Untraceable(f"the backward pass of {kind.__name__}: {reason}") from reason

    def _with_slopes(
        self,
        tensor: Tensor,
        given: Sequence[Tensor],
        backward: Callable[[Tensor], Sequence[Tensor | None]],
    ) -> Node:
        """The node of a custom function's output, with a slope for each input."""
        value, apply = self._value(tensor), self.graph.apply
        come_in = self.graph.leaf(Columns("grad", None), value.width)
        grad = torch.zeros(tensor.shape, dtype=tensor.dtype)
        self.set_meaning(grad, come_in)
        total = apply("detach", value)
        for each, slope in zip(given, backward(grad), strict=True):
            if slope is not None:
                factor, node = self._factor(self.node(slope), come_in), self.node(each)
                factor, rest = (apply("detach", part) for part in (factor, node))
                rise, zero = apply("sub", node, rest), self.graph.const(0)  # of derivative 1
                is_finite = apply("eq", rise, zero)  # what is infinite or NaN leaves the value
                rise = apply("where", is_finite, apply("mul", factor, rise), zero)
                total = apply("add", total, rise)
        return total

    def _give_gradient(
        self, made: Tensor, given: Sequence[Tensor], backward: Callable[[Tensor], Any]
    ) -> None:
        """Register a custom backward pass of a tensor that depends on parameters alone.

        Args:
            made: The function's output.
            given: Its inputs.
            backward: From the incoming gradient to those of the inputs.
        """
        grad, before = torch.zeros(made.shape, dtype=made.dtype), self._calls
        self._keys[id(grad)] = place = next(self._numbers)
        self.set_meaning(grad, None)
        self._calls = []
        try:
            keys = tuple(None if g is None else self._key_of(g) for g in backward(grad))
        finally:
            calls, self._calls = tuple(self._calls), before
        _check_linear(calls, place, keys)
        inside = {place}.union(*(call.results for call in calls))
        reads = {key: None for call in calls for key in call.reads - inside}
        own = OwnGradient(calls, place, tuple(reads), keys)
        tensors = (Operand(self._key_of(tensor)) for tensor in (made, *given))
        self._write(own, (*tensors, *map(Operand, reads)), {}, [made])
        self.set_meaning(made, None)

    def _key_of(self, tensor: Tensor) -> str | int:
        if not self._is_hoisted(tensor):
            raise Untraceable("it is made of more than parameters")
        return self._keys[id(tensor)]

    def _value(self, tensor: Tensor) -> Node:
        """The node that recorded operations gave a tensor."""
        value = super().meaning_of(tensor)
        if not isinstance(value, Node):
            raise Untraceable("a custom function of something other than a row of units")
        return value

    def _input(self, function: Any, place: int) -> Tensor:
        """The input of a custom function, found by the autograd edge of its gradient."""
        for tensor in list(self._alive.values()):
            leaf = getattr(function, "variable", None)
            if leaf is tensor or (function is tensor.grad_fn and place == tensor.output_nr):
                return tensor
        raise Untraceable("a custom function of a tensor from elsewhere")

    def _factor(self, node: Node, of: Node) -> Node:
        """The factor of ``of`` in a node that is a multiple of it."""
        split = Split(self.graph, lambda leaf: 0 if leaf is of else None, "the gradient")
        with suppress(Untraceable):
            factor, rest = split.of(node)
            if rest is self.graph.const(0):
                return factor
        raise Untraceable("it is not a factor times the gradient")


_LINEAR = {
    **dict.fromkeys(VIEWS - {"_to_copy"} | {"neg", "sum", "mean", "detach"}, (0,)),
    **dict.fromkeys(("tensor", "scalar_tensor"), (0,)),
    **dict.fromkeys(("add", "sub"), (0, 1)),
    **dict.fromkeys(("index_put", "masked_fill"), (0, 2)),
    "where": (1, 2),
}
"""Operations that are jointly linear in some of their arguments, and the indices of these."""
_BILINEAR = {"mul", "div", "mm", "bmm", "mv", "dot"}


def _check_linear(calls: Sequence[Call], grad: int, results: Sequence[Any]) -> None:
    """Raise unless a backward pass is linear, so that it may run once on the sum over steps."""
    linear, zeros = {grad}, set[str | int]()
    for call in calls:
        name = getattr(call.func, "__name__", "another function").split(".")[0]
        parts = [*tree_iter(call.args)]
        keys = [part.key if type(part) is Operand else None for part in parts]
        moved = {place for place, key in enumerate(keys) if key in linear}
        fixed = {place for place, part in enumerate(parts) if part == 0 or keys[place] in zeros}
        together = {*_LINEAR.get(name, ())}
        if "zeros" in name or (not moved and together == {0} <= fixed):
            zeros.update(call.results)
        elif moved:
            fine = bool(together) and moved <= together <= moved | fixed
            if name in _BILINEAR:
                fine = moved == {0} or (moved == {1} and name != "div")
            if not fine:
                raise Untraceable(f"aten.{name} is not linear in the gradient")
            linear.update(call.results)
    if not linear | zeros >= {*results} - {None}:
        raise Untraceable("it does not depend on the gradient")
