"""What torch's operations on stand-ins mean, written down as a graph while they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets.engine.composed import COMPOSED
from seqnets.engine.graph import (
    BINARY,
    COMPARISONS,
    UNARY,
    Columns,
    Graph,
    Node,
    Product,
    Untraceable,
    Weight,
)


@dataclass(frozen=True)
class View:
    """Columns of a matrix that has not been computed with yet, plus those of a bias."""

    source: str
    key: Any
    offset: int
    width: int
    bias: tuple[str, int] | None = None

    def part(self, offset: int, width: int) -> View:
        """Some of the columns."""
        bias = None if self.bias is None else (self.bias[0], self.bias[1] + offset)
        return View(self.source, self.key, self.offset + offset, width, bias)


@dataclass(frozen=True)
class _Transposed:
    """A matrix parameter as products take it."""

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


class Watcher(TorchDispatchMode):
    """Sees operations run, and loads no compiler for that."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would load its compiler, which takes a second, to be told to skip this


class Recorder(Watcher):
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
        self._given: set[int] = set()  # memories of what was there before

    def give(self, tensor: Tensor, meaning: Any) -> None:
        """Say what a tensor is that is there before anything runs."""
        self.name(tensor, meaning)
        self._given.add(_memory(tensor))

    def name(self, tensor: Tensor, meaning: Any) -> None:
        """Say what a tensor is."""
        if id(tensor) not in self._meaning:
            self._alive.append(tensor)
            self._sharing[_memory(tensor)] += 1
        self._meaning[id(tensor)] = meaning

    def name_parameter(self, tensor: Tensor, name: str, *, scalar: bool) -> None:
        """Say that a tensor is a parameter; ``scalar``, that one number is not one a unit."""
        if tensor.dim() == 2:
            self.give(tensor, Weight(name, 0, *tensor.shape))
        elif tensor.dim() == 0 or (scalar and tensor.numel() == 1):
            self.give(tensor, self._number(tensor, self.graph.leaf(Columns("parameter", name), 0)))
        elif tensor.dim() == 1:
            self.give(tensor, View("parameter", name, 0, len(tensor)))

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
        if isinstance(meaning, View):
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
        if torch.Tag.nondeterministic_seeded in func.tags or name == "empty_like":  # F.dropout's
            raise Untraceable(f"aten.{name}, for random numbers: project is to draw them")
        if in_place and not self._in_place and self._others_see(args[0]):
            raise Untraceable(f"aten.{name}: an operation in place on what others see")
        if name in COMPOSED:  # simpler operations, each of which comes by here
            with self:
                return COMPOSED[name](*args, **kwargs)
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

    def _others_see(self, tensor: Tensor) -> bool:
        """Whether the memory of a tensor is that of another one, or was there before."""
        memory = _memory(tensor)
        return self._sharing[memory] != 1 or memory in self._given

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
        if name == "_to_copy" and args[0].dtype == torch.bool and result.is_floating_point():
            return self.graph.apply("where", self.node(args[0]), *map(self.graph.const, (1, 0)))
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
        whole = (self.rows, meaning.width) if isinstance(meaning, (Node, View)) else before.shape
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
        elif step != 1 or not isinstance(meaning, (Weight, View)):
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
            if not (isinstance(view, View) and view.source == "parameter"):
                raise Untraceable(f"a bias that is {_told(args[0], view)}")
            bias = (view.key, view.offset)
        product = Product(self.node(value), weight.weight)
        if product not in self.products:
            self.products.append(product)
        return View("product", self.products.index(product), 0, weight.weight.rows, bias)

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
        if name == "div" and kwargs == {"rounding_mode": "floor"}:
            return apply("floor", apply("div", *map(self.node, args)))
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
            return apply("where", apply("le", x, const(args[2])), const(0), grad)  # NaN is let by
        if name == "square" or (name == "pow" and args[1] == 2):
            a = self.node(args[0])
            return apply("mul", a, a)
        if name == "pow" and args[1] in _POWERS:
            return _POWERS[args[1]](apply, const, self.node(args[0]))
        if name in ("maximum", "minimum"):
            a, b = map(self.node, args)
            chosen = apply(name, a, b)
            if "const" not in (a.op, b.op):
                return chosen
            even = apply("mul", apply("add", a, b), const(0.5))  # half a gradient, as of any equals
            return apply("where", apply("eq", a, b), even, chosen)
        if name in ("clamp", "clamp_min", "clamp_max"):
            a = self.node(args[0])
            low, high = (None, args[1]) if name == "clamp_max" else (*args[1:], None)[:2]
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
    | {"clamp", "clamp_min", "clamp_max"}
)  # fmt: skip


def _decomposed(func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """An operation run as torch itself puts it together from simpler ones, if it does."""
    from torch._decomp import decomposition_table

    if func in decomposition_table:
        return decomposition_table[func](*args, **kwargs)
    return func.decompose(*args, **kwargs)


def _part(whole: Tensor, meaning: Any, dim: int, offset: int, size: int) -> Any:
    if isinstance(meaning, Weight) and dim == 0:
        return Weight(meaning.name, meaning.offset + offset, size, meaning.columns)
    if isinstance(meaning, View) and dim == whole.dim() - 1:
        return meaning.part(offset, size)
    raise Untraceable(f"a part of the rows of {_told(whole, meaning)}")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _told(value: Any, meaning: Any) -> str:
    if isinstance(meaning, (Weight, _Transposed)):
        weight = meaning.weight if isinstance(meaning, _Transposed) else meaning
        return f"the matrix {weight.name}"
    if isinstance(meaning, (Node, View)):
        return "something computed"
    if isinstance(value, Tensor) and value.dim() > 2:
        return f"a tensor of {value.dim()} dimensions"
    if isinstance(value, Tensor):
        return f"a tensor from elsewhere, {tuple(value.shape)}"
    return type(value).__name__
