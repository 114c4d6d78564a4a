"""Functions with a derivative of their own in a step: spikes, rounding, whatever has none of use.

Such a function's backward pass is written down as its forward one was. If that is a factor times
the gradient that comes in, the function is what it gave, with that factor as its slope.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_iter

from seqnets.engine.graph import Columns, Node, Untraceable, walk
from seqnets.engine.moving import Moving


class Surrogates(Moving):
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
            self.name(tensor, self._with_slopes(tensor, function))
        elif id(tensor) not in self._alive:
            for other in self._sharing(tensor):  # as where a function has kept what it gave
                if (other.shape, other.stride()) == (tensor.shape, tensor.stride()):
                    self.name(tensor, super()._meaning_of(other))

    def _with_slopes(self, tensor: Tensor, function: Any) -> Node:
        """What a function gave, with the derivative that it says it has."""
        kind, value = function._forward_cls, self._value(tensor)
        if len(function.next_functions) != 1:
            raise Untraceable(f"{kind.__name__}, a function of several tensors")
        given = self._input(*function.next_functions[0])
        come_in = self.graph.leaf(Columns("grad", kind.__name__), value.width)
        grad = torch.zeros(tensor.shape, dtype=tensor.dtype)
        self.name(grad, come_in)
        self.functions.add(kind)
        try:
            with self, torch.no_grad():
                back = kind.backward(function, grad)
            slope = self._factor(self._first(back), come_in)
        except Untraceable as reason:
            raise Untraceable(f"the backward pass of {kind.__name__}: {reason}") from reason
        detached = [self.graph.apply("detach", node) for node in (value, slope, given)]
        rise = self.graph.apply("sub", given, detached[2])  # nothing, with a derivative
        return self.graph.apply("add", detached[0], self.graph.apply("mul", detached[1], rise))

    def _value(self, tensor: Tensor) -> Node:
        """What operations have made of a tensor."""
        value = super()._meaning_of(tensor)
        if not isinstance(value, Node):
            raise Untraceable("a function of what is no row of units")
        return value

    def _first(self, gradients: Any) -> Node:
        """The one gradient among what a backward pass returns."""
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return self.node(next(grad for grad in gradients if grad is not None))

    def _input(self, function: Any, place: int) -> Node:
        """What a function was given, by where its gradient goes on."""
        for tensor in list(self._alive.values()):
            leaf = getattr(function, "variable", None)
            if leaf is tensor or (function is tensor.grad_fn and place == tensor.output_nr):
                return self.node(tensor)
        raise Untraceable("a function of a tensor from elsewhere")

    def _factor(self, node: Node, of: Node) -> Node:
        """By what a node is multiplied in another one, which is linear in it."""
        apply, args = self.graph.apply, node.args
        if node is of:
            return self.graph.const(1)
        inside = [of in walk([arg]) for arg in args]
        if node.op == "mul" and sum(inside) == 1:
            part, other = args if inside[0] else args[::-1]
            return apply("mul", self._factor(part, of), other)
        if node.op == "div" and inside == [True, False]:
            return apply("div", self._factor(args[0], of), args[1])
        if node.op == "neg":
            return apply("neg", self._factor(args[0], of))
        if node.op == "where" and not inside[0]:
            zero = self.graph.const(0)
            parts = (part if part is zero else self._factor(part, of) for part in args[1:])
            return apply("where", args[0], *parts)
        raise Untraceable("it is not a factor times the gradient")
