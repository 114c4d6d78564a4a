"""Functions with a derivative of their own in a step: spikes, rounding, whatever has none of use.

Such a function's backward pass is written down as its forward one was. If that is a factor times
the gradient that comes in, for each tensor, the function is what it gave, with these factors as its
slopes. That of a function of parameters alone may be anything: torch runs it once a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_iter

from seqnets.engine.graph import Columns, Node, Untraceable, walk
from seqnets.engine.placing import Placing


class Surrogates(Placing):
    """Writes down a step while gradients are recorded, and so sees such functions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.functions: set[type] = set()
        self._seen: set[Any] = set()

    def give(self, tensor: Tensor, meaning: Any) -> None:
        """Say what a tensor is that is there before anything runs."""
        super().give(tensor, meaning)
        if tensor.is_floating_point():
            tensor.requires_grad_()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default and self._is_new(args[0].grad_fn):
            result = func(*args)  # of a function that is not done, and keeps what it gave
            if self._is_made(args[0]):
                self._take(result, args[0])
            else:
                self.name(result, self.graph.apply("detach", self._value(args[0])))
            return result
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._look_at(tensor)
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _meaning_of(self, tensor: Any) -> Any:
        if isinstance(tensor, Tensor):
            self._look_at(tensor)
        return super()._meaning_of(tensor)

    def _is_new(self, function: Any) -> bool:
        """Whether a derivative is a function's own, and not written down yet."""
        return isinstance(function, BackwardCFunction) and function not in self._seen

    def _look_at(self, tensor: Tensor) -> None:
        """See what a tensor is that no operation has made."""
        function = tensor.grad_fn
        if self._is_new(function):
            self._seen.add(function)
            self._derive(tensor, function)
        elif id(tensor) not in self._alive:
            for other in self._sharing(tensor):  # as where a function has kept what it gave
                if (other.shape, other.stride()) == (tensor.shape, tensor.stride()):
                    self._take(tensor, other)

    def _derive(self, tensor: Tensor, function: Any) -> None:
        """Say what a function gave, with the derivative that it says it has."""
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
            if self._is_made(tensor):
                self._give_gradient(tensor, given, backward)
            else:
                self.name(tensor, self._with_slopes(tensor, given, backward))
        except Untraceable as reason:
            raise Untraceable(f"the backward pass of {kind.__name__}: {reason}") from reason

    def _with_slopes(
        self,
        tensor: Tensor,
        given: Sequence[Tensor],
        backward: Callable[[Tensor], Sequence[Tensor | None]],
    ) -> Node:
        """What a function gave, with a slope for each tensor that it was given."""
        value, apply = self._value(tensor), self.graph.apply
        come_in = self.graph.leaf(Columns("grad", None), value.width)
        grad = torch.zeros(tensor.shape, dtype=tensor.dtype)
        self.name(grad, come_in)
        total = apply("detach", value)
        for each, slope in zip(given, backward(grad), strict=True):
            if slope is not None:
                factor, node = self._factor(self.node(slope), come_in), self.node(each)
                factor, rest = (apply("detach", part) for part in (factor, node))
                rise = apply("sub", node, rest)  # nothing, with a derivative
                total = apply("add", total, apply("mul", factor, rise))
        return total

    def _value(self, tensor: Tensor) -> Node:
        """What operations have made of a tensor."""
        value = super()._meaning_of(tensor)
        if not isinstance(value, Node):
            raise Untraceable("a function of what is no row of units")
        return value

    def _input(self, function: Any, place: int) -> Tensor:
        """What a function was given, by where its gradient goes on."""
        for tensor in list(self._alive.values()):
            leaf = getattr(function, "variable", None)
            if leaf is tensor or (function is tensor.grad_fn and place == tensor.output_nr):
                return tensor
        raise Untraceable("a function of a tensor from elsewhere")

    def _factor(self, node: Node, of: Node) -> Node:
        """By what a node is multiplied in another one, which is linear in it."""
        apply, args = self.graph.apply, node.args
        if node is of:
            return self.graph.const(1)
        if node is self.graph.const(0):
            return node
        inside = [of in walk([arg]) for arg in args]
        if node.op == "mul" and sum(inside) == 1:
            part, other = args if inside[0] else args[::-1]
            return apply("mul", self._factor(part, of), other)
        if node.op == "div" and inside == [True, False]:
            return apply("div", self._factor(args[0], of), args[1])
        if node.op == "neg":
            return apply("neg", self._factor(args[0], of))
        if node.op == "where" and not inside[0]:
            return apply("where", args[0], *(self._factor(part, of) for part in args[1:]))
        raise Untraceable("it is not a factor times the gradient")
