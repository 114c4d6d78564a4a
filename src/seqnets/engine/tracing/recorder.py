"""The tracer: a dispatch mode that records aten operations on stand-in tensors as graph nodes.

``trace.py`` runs a step under a subclass, which knows more operations. What an operation means is
told by its family: ``views.py``, ``pointwise.py`` and ``reductions.py``. Operations of no family
are decomposed into ones that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.graph import COMPARISONS, Columns, Graph, Node, Untraceable
from seqnets.engine.step import Product, Weight
from seqnets.engine.tracing import pointwise, reductions, views
from seqnets.engine.tracing.composed import COMPOSED, INSTEAD
from seqnets.engine.tracing.meanings import UNWRITTEN, Meanings, Operation, described

_EMPTY = {"empty", "empty_like", "new_empty"}
_PRODUCTS = {"mm", "addmm", "bmm"}
POINTWISE = {*pointwise.ARITHMETIC} | pointwise.FILLS | views.JOINED
"""Pointwise operations, and concatenation."""
_KNOWN = views.VIEWS | POINTWISE | reductions.REDUCED | reductions.NORMALISED | _PRODUCTS | {"copy"}


class Recorder(Meanings):
    """Records the meaning of each tensor, most often a node, while operations run.

    Args:
        graph: The graph in which nodes are built.
        rows: Rows of the batch; no other size is a multiple of it.
        dtypes: The dtypes that arithmetic may use.
    """

    def __init__(self, graph: Graph, rows: int, dtypes: set[torch.dtype]) -> None:
        super().__init__(graph, rows)
        self.dtypes = dtypes
        self.products: list[Product] = []

    # What subclasses do otherwise; by itself, this class records torch's autograd.

    keeps_aliases = False
    """Whether what is changed in place may have aliases, which change with it; here none has."""

    def detached(self, node: Node) -> Node:
        """A detached node: itself, since first derivatives are not differentiated again."""
        return node

    def whole_quotient(self, rounding: str, a: Node, b: Node) -> Node:
        """A division rounded as torch's ``rounding_mode`` says."""
        return pointwise.whole_quotient(self, rounding, a, b)

    def _joined(self, name: str, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Node:
        return views.joined(self, name, result, tensors, dim)

    def _pointwise(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        return pointwise.pointwise(self, name, args, kwargs)

    # Recording.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self._result_of(func, func._schema.name.removeprefix("aten::"), args, kwargs or {})

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The result of an operation on stand-ins, whose meaning is known from then on."""
        if torch.Tag.nondeterministic_seeded in func.tags and name not in COMPOSED:
            raise Untraceable(
                f"aten.{name}, for random numbers: project is to draw them, and no step to call it"
            )
        if name in _EMPTY:
            result = func(*args, **kwargs)
            self.set_meaning(result, UNWRITTEN)
            return result
        if _is_in_place(name) and self.keeps_aliases:
            if (apart := _out_of_place(func)) is not None:
                return self._replaced(func, apart, args, kwargs)
            self.change(name, args[0])
        composed = self._composed(func, name, args, kwargs)
        if composed is not NotImplemented:
            return composed
        return self._recorded(func, name, args, kwargs)

    def _composed(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The result of an operation by simpler ones, recorded one by one.

        NotImplemented for an operation that has a meaning of its own, or no decomposition.
        """
        if name in COMPOSED:
            with self:
                return COMPOSED[name](*args, **kwargs)
        if name.removesuffix("_") in _KNOWN:
            return NotImplemented
        try:
            with self:
                return _decomposed(func, args, kwargs)
        except Untraceable as part:  # report the operation that the step calls
            inside = "" if name in INSTEAD or "prims::" in str(part) else f", in which {part}"
            raise Untraceable(f"aten.{name}{inside}{pointwise.instead(name)}") from part

    def _recorded(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run an operation on stand-ins, and set the meaning of its result, or results."""
        if name in _PRODUCTS:  # values are never read
            result = args[-2].new_empty(*args[-2].shape[:-1], args[-1].shape[-1])
        else:
            result = func(*args, **kwargs)
        plain = name.removesuffix("_")
        self._check_dtypes(plain, args, result)
        meanings = self._meanings(plain, args, dict(kwargs), result)
        if _is_in_place(name):
            self.set_meaning(args[0], meanings)
        elif isinstance(result, (list, tuple)):
            for tensor, meaning in zip(result, meanings, strict=True):
                self.set_meaning(tensor, meaning)
        else:
            self.set_meaning(result, meanings)
        return result

    def _replaced(self, func: Any, apart: Any, args: tuple[Any, ...], kwargs: Any) -> Tensor:
        """Run an in-place operation as its functional variant, and rename the tensor."""
        tensor = before = args[0]
        if torch.Tag.inplace_view in func.tags:  # as squeeze_, by which matmul of a vector ends
            before = tensor.clone()  # its shape stays, and no view is an alias
            self.take(before, tensor)
        with self:
            result = apart(before, *args[1:], **kwargs)
        others = [other for other in self.sharing(tensor) if other is not tensor]
        changed = [(other, self.with_part(other, tensor, result)) for other in others]
        self.change(func._schema.name.removeprefix("aten::"), tensor)
        func(*args, **kwargs)
        for other, now in ((tensor, result), *changed):
            if now is not None:
                self.take(other, now)
        return tensor

    def _check_dtypes(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Raise if an operation rounds as nodes cannot, or computes in an unsupported dtype.

        Booleans may be converted to 1 or 0, and summed.
        """
        if name not in _KNOWN:  # rejected elsewhere
            return
        args = args[0] if name in views.JOINED else args
        given = [arg.dtype for arg in args if isinstance(arg, Tensor)]
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if self._are_fine(name, args, given, tensor.dtype):
                continue
            if name == "_to_copy":
                raise Untraceable(
                    f"a cast of {given[0]} to {tensor.dtype}{_instead_of_a_cast(tensor)}"
                )
            told = " and ".join(sorted({str(dtype) for dtype in given}))
            instead = "; instead of take_along_dim: gather" if name == "remainder" else ""
            raise Untraceable(f"aten.{name} of {told}, which is {tensor.dtype}{instead}")

    def _are_fine(
        self, name: str, args: Sequence[Any], given: Sequence[torch.dtype], made: torch.dtype
    ) -> bool:
        """Whether nodes compute what an operation does with operands of these dtypes."""
        if name in _PRODUCTS:
            return {*given} <= self.dtypes
        if name in pointwise.LOGICAL:
            return {*given} <= {torch.bool} | (self.dtypes if "logical" in name else set())
        if made in self.dtypes or name in COMPARISONS | pointwise.FILLS:
            return True
        if name in views.VIEWS | {"detach"} and given[0] in (made, torch.bool):
            return True
        if name == "where":
            return made == torch.bool or all(map(self.is_constant, args[1:]))
        if name in views.JOINED:
            return made == torch.bool
        counted = {"sum": torch.int64, "mul": torch.bool}
        return {*given} == {torch.bool} and counted.get(name) == made

    def _meanings(self, name: str, args: tuple[Any, ...], kwargs: Any, result: Any) -> Any:
        """The meaning of an operation's result, or a list of them."""
        if name == "_to_copy" and args[0].dtype == torch.bool != result.dtype:
            return self.number(args[0])
        if name in views.RESHAPED | views.SLICED:
            whole, made = args[0], [result] if isinstance(result, Tensor) else result
            if all(tensor.shape == whole.shape for tensor in made):
                meaning = self._meaning.get(id(whole))
                return meaning if isinstance(result, Tensor) else [meaning] * len(made)
        first = self.meaning_of(args[0]) if args else None
        if name == "detach" and first == UNWRITTEN:
            return first
        if name in _FAMILIES:
            return _FAMILIES[name](self, Operation(name, args, kwargs, result, first))
        if name in views.JOINED:
            return self._joined(name, result, *args)
        if name in _PRODUCTS:
            return self._product(name, args, kwargs)
        if name == "copy":
            return self.node(args[1])
        node = self._pointwise(name, args, kwargs)
        if not any(isinstance(arg, Tensor) and arg.shape == result.shape for arg in args):
            self._check_shape(name, result, node)
        return node

    def _check_shape(self, name: str, tensor: Tensor, node: Node) -> None:
        if node.width and self.units.count(tensor.shape) != node.width:
            shape = tuple(tensor.shape)
            raise Untraceable(f"aten.{name} that combines rows of the batch, giving {shape}")

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        value, right = args[-2:]
        if 0 in right.shape:
            raise Untraceable("a product by no units")
        weight = self.matrix(right)
        alone = self.units.count(value.shape) == value.shape[-1]
        if not isinstance(weight, Weight) or not alone:
            raise Untraceable(f"a product by {described(right, weight)}")
        if (weight.rows, weight.columns) != right.shape[-2:]:  # a vector
            weight = weight.transposed
        node = self.times(self.graph.spread(self.node(value), value.shape[-1]), weight.transposed)
        if name != "addmm":
            return node
        terms = (kwargs.get("alpha", 1), node), (kwargs.get("beta", 1), self.node(args[0]))
        return self.graph.fold("sum", [self._times_number(*term) for term in terms])

    def _times_number(self, number: float, node: Node) -> Node:
        return node if number == 1 else self.graph.apply("mul", node, self.graph.const(number))

    def times(self, node: Node, weight: Weight) -> Node:
        """``node @ weight.T``: one product for each piece of a concatenation, summed."""
        terms, first = [], 0
        for piece in node.pieces:
            terms.append(self.times_piece(piece, weight.part(1, first, piece.width)))
            first += piece.width
        return self.graph.fold("sum", terms)

    def times_piece(self, node: Node, weight: Weight) -> Node:
        """``node @ weight.T`` of a node that is no concatenation."""
        product = Product(node, weight)
        if product not in self.products:
            self.products.append(product)
        return self.graph.leaf(Columns("product", self.products.index(product)), weight.rows)


_FAMILIES: dict[str, Callable[[Recorder, Operation], Any]] = {
    **dict.fromkeys(views.RESHAPED, views.reshaped),
    **dict.fromkeys(views.TURNED, views.turned),
    **dict.fromkeys(views.SLICED, views.sliced),
    **dict.fromkeys(pointwise.FILLS, pointwise.filled),
    **dict.fromkeys(reductions.REDUCED, reductions.reduced),
    **dict.fromkeys(reductions.NORMALISED, reductions.normalised),
}
"""What tells the meaning of an operation's result; all others are methods of the recorder."""


def _instead_of_a_cast(tensor: Tensor) -> str:
    if tensor.is_complex():
        return pointwise.instead("complex")
    if tensor.is_floating_point():
        return ""
    return "; instead: (x == torch.arange(n)).to(x.dtype) @ rows for one of n rows, or project"


def _is_in_place(name: str) -> bool:
    """Whether an operation of this name changes its first argument; "__and__" is none."""
    return name.endswith("_") and not name.endswith("__")


def _decomposed(func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """Run torch's own decomposition of an operation; NotImplemented if there is none."""
    from torch._decomp import decomposition_table

    if func in decomposition_table:
        return decomposition_table[func](*args, **kwargs)
    return func.decompose(*args, **kwargs)


def _out_of_place(func: Any) -> Any:
    """The functional variant of an in-place operation; None if there is none."""
    name = func._overloadpacket.__name__.removesuffix("_")
    if name == "copy":  # torch's own has no derivative
        return _copied
    return getattr(getattr(torch.ops.aten, name, None), func._overloadname, None)


def _copied(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(x.dtype).expand(x.shape).clone()  # an alias of nothing
