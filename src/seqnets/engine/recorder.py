"""The tracer: a dispatch mode that records aten operations on stand-in tensors as graph nodes.

``trace.py`` runs a step under a subclass: ``prepared.py`` adds operations on parameters alone,
``moving.py`` operations that move units, ``placing.py`` data-dependent indices, ``surrogate.py``
custom gradients. Operations that are not known here are decomposed into ones that are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets.engine.composed import COMPOSED, INSTEAD
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
from seqnets.engine.units import Units, sizes_of

_SAME = {
    "alias", "clone", "lift_fresh", "contiguous", "view", "_unsafe_view", "expand",
    "reshape", "unsqueeze", "squeeze", "_to_copy",
}  # fmt: skip
_PIECES = {
    "slice", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "narrow",
    "select", "unbind",
}  # fmt: skip
_JOINED = {"cat", "stack"}
_REDUCED = {"sum", "mean", "amax"}
NORMALISED = {"_softmax", "_log_softmax"}
_TURNED = {"t", "transpose", "numpy_T", "permute"}
FILLS = {
    "zeros_like", "new_zeros", "zeros", "ones_like", "new_ones", "ones", "full", "full_like",
    "new_full", "scalar_tensor",
}  # fmt: skip


_EMPTY = {"empty", "empty_like", "new_empty"}
_UNWRITTEN = "memory that nothing was written to"


class Watcher(TorchDispatchMode):
    """A dispatch mode that does not import torch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes a second, to skip this mode


class Recorder(Watcher):
    """Records the meaning of each tensor, most often a node, while operations run.

    Args:
        graph: The graph in which nodes are built.
        rows: Rows of the batch; no other size is a multiple of it.
        dtypes: The dtypes that arithmetic may use.
        in_place: Whether in-place operations may change tensors with aliases.
    """

    def __init__(
        self, graph: Graph, rows: int, dtypes: set[torch.dtype], *, in_place: bool = False
    ) -> None:
        super().__init__()
        self.graph = graph
        self.units = Units(graph, rows)
        self._dtypes = dtypes
        self.products: list[Product] = []
        self._shapes: dict[str, torch.Size] = {}
        self._in_place = in_place
        self._meaning: dict[int, Any] = {}
        self._alive: dict[int, Tensor] = {}  # ids are unique only among live objects
        self._given: set[int] = set()  # storages that exist before the step

    def give(self, tensor: Tensor, meaning: Any) -> None:
        """Set the meaning of a tensor that exists before the step runs."""
        self.name(tensor, meaning)
        self._given.add(memory_of(tensor))

    def name(self, tensor: Tensor, meaning: Any) -> None:
        """Set the meaning of a tensor."""
        self._alive[id(tensor)] = tensor
        self._meaning[id(tensor)] = meaning

    def name_parameter(self, tensor: Tensor, name: str, *, scalar: bool) -> None:
        """Register a parameter; with ``scalar``, one of a single number is shared by all units."""
        self._shapes[name] = tensor.shape
        if tensor.dim() == 2:
            self.give(tensor, Weight(name, 0, *tensor.shape))
        elif tensor.dim() == 0 or (scalar and tensor.numel() == 1):
            self.give_columns(tensor, Columns("parameter", name), 0)
        elif tensor.dim() == 1:
            self.give_columns(tensor, Columns("parameter", name))
        else:
            self.give(tensor, f"the parameter {name} of {tensor.dim()} dimensions")

    def give_columns(self, tensor: Tensor, columns: Columns, width: int | None = None) -> None:
        """Register a leaf; ``width`` defaults to the size of the last dimension."""
        width = tensor.shape[-1] if width is None else width
        self.give(tensor, partial(self._leaf, columns, width, tensor.dtype == torch.bool))

    def _leaf(self, columns: Columns, width: int, truth: bool) -> Node:
        leaf = self.graph.leaf(columns, width)  # loops store booleans as 1 or 0
        return self.graph.apply("ne", leaf, self.graph.const(0)) if truth else leaf

    def _meaning_of(self, tensor: Any) -> Any:
        """A tensor's meaning, None if unknown. Leaves are built lazily, in the order of use."""
        meaning = self._meaning.get(id(tensor)) if isinstance(tensor, Tensor) else None
        if isinstance(meaning, partial):
            meaning = self._meaning[id(tensor)] = meaning()
        return meaning

    def node(self, value: Any) -> Node:
        """The node of a tensor or Python number."""
        if isinstance(value, (bool, int, float)):
            return self.graph.const(value)
        meaning = self._meaning_of(value)
        if isinstance(meaning, Node):
            return meaning
        if isinstance(meaning, Weight) and meaning.rows == 1 and not meaning.turned:
            first = meaning.offset * self._shapes[meaning.name][1] + meaning.first
            columns = Columns("parameter", meaning.name, first)
            return self._leaf(columns, meaning.columns, value.dtype == torch.bool)
        raise Untraceable(f"arithmetic with {_told(value, meaning)}")

    def _is_number(self, value: Any) -> bool:
        """Whether a value is a Python number or a constant tensor."""
        meaning = self._meaning_of(value)
        return not isinstance(value, Tensor) or getattr(meaning, "op", None) == "const"

    def _matrix(self, tensor: Tensor) -> Any:
        """The meaning of a product's right operand."""
        return self._meaning_of(tensor)

    def _number(self, value: Any) -> Node:
        """The node of a value, with booleans converted to 1 or 0."""
        node = self.node(value)
        if not isinstance(value, Tensor) or value.dtype != torch.bool:
            return node
        return self.graph.apply("where", node, *map(self.graph.const, (1, 0)))

    def _as_in(self, tensor: Tensor, number: Node) -> Node:
        """A numeric node converted to a tensor's kind: ``!= 0`` where that is boolean."""
        truth = tensor.dtype == torch.bool
        return self.graph.apply("ne", number, self.graph.const(0)) if truth else number

    def _truth(self, value: Any) -> Node:
        """The node of a value's truth, as 1 or 0."""
        node = self.node(value)
        if isinstance(value, Tensor) and value.dtype != torch.bool:
            node = self.graph.apply("ne", node, self.graph.const(0))
        return self.graph.apply("where", node, *map(self.graph.const, (1, 0)))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        in_place = name.endswith("_") and not name.endswith("__")
        if torch.Tag.nondeterministic_seeded in func.tags and name not in COMPOSED:
            raise Untraceable(f"aten.{name}, for random numbers: project is to draw them")
        if name in _EMPTY:
            result = func(*args, **kwargs)
            self.name(result, _UNWRITTEN)
            return result
        if in_place and not self._in_place:
            if (apart := _out_of_place(func)) is not None:
                return self._replaced(func, apart, args, kwargs)
            self._change(name, args[0])
        if name in COMPOSED:  # of simpler operations, recorded one by one
            with self:
                return COMPOSED[name](*args, **kwargs)
        if name.removesuffix("_") not in _KNOWN:
            try:
                with self:
                    composed = _decomposed(func, args, kwargs)
            except Untraceable as part:  # report the operation that the step calls
                inside = "" if name in INSTEAD or "prims::" in str(part) else f", in which {part}"
                raise Untraceable(f"aten.{name}{inside}{_instead(name)}") from part
            if composed is not NotImplemented:
                return composed
        if name in ("mm", "addmm", "bmm"):  # values are never read
            result = args[-2].new_empty(*args[-2].shape[:-1], args[-1].shape[-1])
        else:
            result = func(*args, **kwargs)
        self._check_dtypes(name.removesuffix("_"), args, result)
        meanings = self._meanings(name.removesuffix("_"), args, dict(kwargs), result)
        if in_place:
            self.name(args[0], meanings)
        elif isinstance(result, (list, tuple)):
            for tensor, meaning in zip(result, meanings, strict=True):
                self.name(tensor, meaning)
        else:
            self.name(result, meanings)
        return result

    def _replaced(self, func: Any, apart: Any, args: tuple[Any, ...], kwargs: Any) -> Tensor:
        """Run an in-place operation as its functional variant, and rename the tensor."""
        tensor = args[0]
        with self:
            result = apart(*args, **kwargs)
        others = [other for other in self._sharing(tensor) if other is not tensor]
        changed = [(other, self._with_part(other, tensor, result)) for other in others]
        self._change(func._schema.name.removeprefix("aten::"), tensor)
        func(*args, **kwargs)
        for other, now in ((tensor, result), *changed):
            if now is not None:
                self._take(other, now)
        return tensor

    def _with_part(self, whole: Tensor, part: Tensor, new: Tensor) -> Tensor | None:
        """A tensor with the part that an aliasing view covers replaced; None if not supported."""
        meaning = self._meaning.get(id(whole))
        if meaning == _UNWRITTEN:
            meaning = self.graph.const(math.nan)
        if not isinstance(meaning, (Node, partial)) or whole.dtype == torch.bool:
            return None
        if any(tensor.shape[:1] != (self.units.rows,) for tensor in (whole, part)):
            return None
        size, width = whole[0].numel(), part[0].numel()
        first = int(part.storage_offset() - whole.storage_offset())
        beside = whole.is_contiguous() and part[0].is_contiguous() and part.stride(0) == size
        if not beside or not 0 <= first <= size - width:
            return None

        def joined() -> Node:
            old = self.graph.spread(meaning() if isinstance(meaning, partial) else meaning, size)
            places = (0, first), (first + width, size - width - first)
            before, after = ([self.graph.part(old, *place)] if place[1] else [] for place in places)
            return self.graph.cat(*before, self.graph.spread(self._number(new), width), *after)

        changed = torch.zeros(whole.shape, dtype=whole.dtype)
        self.name(changed, partial(joined))  # lazy: it may never be read
        return changed

    def _take(self, tensor: Tensor, other: Tensor) -> None:
        """Give a tensor the meaning of another."""
        self.name(tensor, self._meaning.get(id(other)))

    def _change(self, name: str, tensor: Tensor) -> None:
        """Invalidate the aliases of a tensor that is about to change in place."""
        if memory_of(tensor) in self._given:
            raise Untraceable(f"aten.{name}: an operation in place on what others see")
        for other in self._sharing(tensor):
            if other is not tensor and _overlap(tensor, other):
                self._meaning[id(other)] = f"what aten.{name} changes in place under another name"

    def _sharing(self, tensor: Tensor) -> list[Tensor]:
        """All known tensors that share a tensor's storage."""
        memory = memory_of(tensor)
        return [other for other in self._alive.values() if memory_of(other) == memory]

    def _check_dtypes(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Raise if an operation rounds as nodes cannot, or computes in an unsupported dtype.

        Booleans may be converted to 1 or 0, and summed.
        """
        if name not in _KNOWN:  # rejected elsewhere
            return
        args = args[0] if name in _JOINED else args
        given = [arg.dtype for arg in args if isinstance(arg, Tensor)]
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if name in ("mm", "addmm", "bmm"):
                fine = {*given} <= self._dtypes
            elif name in _LOGICAL:
                fine = {*given} <= {torch.bool} | (self._dtypes if "logical" in name else set())
            elif name in VIEWS | {"detach"} and given[0] in (tensor.dtype, torch.bool):
                fine = True
            else:
                fine = tensor.dtype in self._dtypes or name in COMPARISONS | FILLS
                fine = fine or (name == "sum" and given == [torch.bool])
                fine = fine or (name in _JOINED and tensor.dtype == torch.bool)
                fine = fine or (name == "mul" and {*given} == {torch.bool})
                fine = fine or (name == "where" and all(map(self._is_number, args[1:])))
            if not fine and name == "_to_copy":
                raise Untraceable(f"a cast of {given[0]} to {tensor.dtype}")
            if not fine:
                told = " and ".join(sorted({str(dtype) for dtype in given}))
                raise Untraceable(f"aten.{name} of {told}, which is {tensor.dtype}")

    def _meanings(self, name: str, args: tuple[Any, ...], kwargs: Any, result: Any) -> Any:
        if name == "_to_copy" and args[0].dtype == torch.bool and result.is_floating_point():
            return self._number(args[0])
        if name in _SAME | _PIECES:
            whole, made = args[0], [result] if isinstance(result, Tensor) else result
            if all(tensor.shape == whole.shape for tensor in made):
                meaning = self._meaning.get(id(whole))
                return meaning if isinstance(result, Tensor) else [meaning] * len(made)
        first = self._meaning_of(args[0]) if args else None
        if name == "detach" and first == _UNWRITTEN:
            return first
        if name in _SAME:
            return self._reshaped(name, args[0], first, result)
        if name in _TURNED:
            return self._turned(name, args, first)
        if name in _PIECES:
            return self._pieces(name, args[0], first, args[1:], result)
        if name in _JOINED:
            return self._joined(name, result, *args)
        if name in ("mm", "addmm", "bmm"):
            return self._product(name, args, kwargs)
        if name in FILLS:
            return self._as_in(result, self.graph.const(self._filled_in(name, args, result)))
        if name == "copy":
            return self.node(args[1])
        if name in _REDUCED:
            return self._reduced(name, args, kwargs)
        if name in NORMALISED:
            return self._normalised(name, *args[:2])
        node = self._pointwise(name, args, kwargs)
        if not any(isinstance(arg, Tensor) and arg.shape == result.shape for arg in args):
            self._check_shape(name, result, node)
        return node

    def _filled_in(self, name: str, args: tuple[Any, ...], result: Tensor) -> float:
        """The fill value: as passed, unless the tensor's dtype rounds it."""
        if name in ("full", "full_like", "new_full") and result.dtype in self._dtypes:
            return args[-1]
        if name == "scalar_tensor" and result.dtype in self._dtypes:
            return args[0]
        return result.flatten()[0].item()

    def _check_shape(self, name: str, tensor: Tensor, node: Node) -> None:
        if node.width and self.units.count(tensor.shape) != node.width:
            raise Untraceable(f"aten.{name} that makes {tuple(tensor.shape)} of rows of units")

    def _reshaped(self, name: str, before: Tensor, meaning: Any, after: Tensor) -> Any:
        """The meaning of a view: the same units, or one number per row broadcast to several."""
        if isinstance(meaning, Node) and not meaning.width:
            return meaning
        if isinstance(meaning, Weight) and sizes_of(before.shape) == sizes_of(after.shape):
            return meaning
        if name == "expand" and isinstance(meaning, Weight) and meaning.rows == 1:
            meaning = self.node(before)
        width, before_rows = self.units.count(after.shape), self.units.before_rows
        if isinstance(meaning, Node) and width is not None:
            if width == meaning.width and before_rows(before.shape) == before_rows(after.shape):
                return meaning
            if meaning.width == 1 and name == "expand":
                return self.graph.spread(meaning, width)
        if after.dim() > 2:  # rejected when something computes with it
            return None
        raise Untraceable(f"aten.{name} of {_told(before, meaning)}")

    def _turned(self, name: str, args: tuple[Any, ...], meaning: Any) -> Any:
        """The meaning of a transposition; dimensions of size 1 do not count."""
        whole = args[0]
        order = list(range(whole.dim()))
        if name == "permute":
            order = [dim % whole.dim() for dim in args[1]]
        elif whole.dim() > 1:
            a, b = args[1:] or (0, 1)
            order[a], order[b] = order[b], order[a]
        if not isinstance(meaning, Weight) or whole.dim() > 2:
            some = (1, self.units.rows)  # the rows' dimension may stand anywhere
            order = [dim for dim in order if whole.shape[dim] not in some]
        if order == sorted(order):
            return meaning
        if not isinstance(meaning, Weight) or len(order) != 2:
            raise Untraceable(f"aten.{name} of {_told(whole, meaning)}")
        return meaning.transposed

    def _pieces(self, name: str, whole: Tensor, meaning: Any, args: Any, result: Any) -> Any:
        """The meaning of each slice along a dimension: one, or a list."""
        at = 0 if name in ("slice", "narrow", "select", "unbind") else 1
        dim = args[at] % whole.dim() if len(args) > at else 0
        pieces = [result] if isinstance(result, Tensor) else result
        step = args[3] if name == "slice" and len(args) > 3 else 1
        if step != 1 and not (isinstance(meaning, Node) and not meaning.width):
            raise Untraceable(f"every {step}th of {_told(whole, meaning)}")
        size, offset = whole.shape[dim], 0
        if name in ("slice", "narrow", "select"):
            offset = args[1] if len(args) > 1 and args[1] is not None else 0
            offset = min(offset + size if offset < 0 else offset, size)
        named = []
        for piece in pieces:
            many = 1 if name in ("select", "unbind") else piece.shape[dim]
            named.append(self._part(name, whole, meaning, dim, offset, many))
            offset += many
        return named[0] if isinstance(result, Tensor) else named

    def _part(self, name: str, whole: Tensor, meaning: Any, dim: int, first: int, many: int) -> Any:
        if not many:
            raise Untraceable("a part of no units")
        if isinstance(meaning, Weight) and whole.dim() == 2:
            return meaning.part(dim, first, many)
        if isinstance(meaning, Node):
            return self.units.part(name, meaning, whole.shape, dim, first, many)
        if whole.dim() > 2 or meaning == _UNWRITTEN:  # rejected when computed with
            return meaning if isinstance(meaning, str) else None
        raise Untraceable(f"a part of {_told(whole, meaning)}")

    def _joined(self, name: str, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Node:
        dim %= result.dim()
        shapes = [list(tensor.shape) for tensor in tensors]
        if name == "stack":
            for shape in shapes:
                shape.insert(dim, 1)
        node = self.node if result.dtype == torch.bool else self._number
        return self.units.joined(name, list(map(node, tensors)), shapes, dim)

    def _product(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        value, right = args[-2:]
        weight = self._matrix(right)
        alone = self.units.count(value.shape) == value.shape[-1]
        if not isinstance(weight, Weight) or not alone:
            raise Untraceable(f"a product by {_told(right, weight)}")
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
        pieces, terms, first = node.args if node.op == "cat" else (node,), [], 0
        for piece in pieces:
            part = weight.part(1, first, piece.width)
            product = Product(piece, part)
            if product not in self.products:
                self.products.append(product)
            columns = Columns("product", self.products.index(product))
            terms.append(self.graph.leaf(columns, part.rows))
            first += piece.width
        return self.graph.fold("sum", terms)

    def _reduced(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        value, dims = args[0], (*args[1:], None)[0] or []
        dims = [dim for dim in dims if value.shape[dim] != 1] or dims[:1]
        if len(dims) != 1 or kwargs:
            raise Untraceable(f"aten.{name} over other than the units of a row")
        place = value.shape, dims[0]
        if name == "amax":
            return self._largest(self.node(value), *place)
        total = self.units.reduced(name, "sum", self._number(value), *place)
        count = self.graph.const(1 / value.shape[dims[0]])
        return total if name == "sum" else self.graph.apply("mul", total, count)

    def _largest(self, node: Node, shape: Sequence[int], dim: int) -> Node:
        """The maximum; as in torch, equal maxima share the gradient equally."""
        apply, const, units = self.graph.apply, self.graph.const, self.units
        largest = units.reduced("amax", "max", node, shape, dim)
        if all(each.op == "detach" for each in (node.args if node.op == "cat" else (node,))):
            return largest
        largest = units.repeated(largest, shape, dim)
        found = apply("eq", node, largest)
        total, count = (
            units.reduced("amax", "sum", apply("where", found, each, const(0)), shape, dim)
            for each in (node, const(1))
        )
        return apply("div", total, count)

    def _normalised(self, name: str, value: Tensor, dim: int) -> Node:
        """Softmax or log-softmax."""
        apply, units, node = self.graph.apply, self.units, self.node(value)
        place = value.shape, dim
        largest = units.repeated(units.reduced(name, "max", node, *place), *place)
        below = apply("sub", node, largest)
        exponentials = apply("exp", below)
        total = units.repeated(units.reduced(name, "sum", exponentials, *place), *place)
        if name == "_softmax":
            return apply("div", exponentials, total)
        return apply("sub", below, apply("log", total))

    def _pointwise(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        apply, const = self.graph.apply, self.graph.const
        alpha = kwargs.pop("alpha", 1)
        if rounding := kwargs.pop("rounding_mode", None):
            return self._whole_quotient(rounding, *map(self.node, args))
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
            return apply("where", apply("le", x, const(args[2])), const(0), grad)  # NaN passes
        if name == "square":
            name, args = "pow", (args[0], 2)
        if name == "pow" and not isinstance(args[0], Tensor) and args[0] == 2:
            return apply("exp2", self.node(args[1]))
        if name == "pow" and not isinstance(args[0], Tensor) and args[0] > 0:
            return apply("exp", apply("mul", self.node(args[1]), const(math.log(args[0]))))
        if name == "pow" and len(args) == 2:
            return self._power(*args)
        if name in ("maximum", "minimum"):
            a, b = map(self.node, args)
            chosen = apply(name, a, b)
            if "const" not in (a.op, b.op):
                return chosen
            even = apply("mul", apply("add", a, b), const(0.5))  # equals share the gradient
            return apply("where", apply("eq", a, b), even, chosen)
        if name in ("clamp", "clamp_min", "clamp_max"):
            a = self.node(args[0])
            low, high = (None, args[1]) if name == "clamp_max" else (*args[1:], None)[:2]
            for op, bound in (("maximum", low), ("minimum", high)):
                if bound is not None:
                    chosen = apply(op, a, self.node(bound))
                    at_bound = apply("eq", a, self.node(bound))  # all gradient to a
                    a = apply("where", at_bound, a, chosen) if isinstance(bound, Tensor) else chosen
            return a
        if name == "mul" and all(getattr(arg, "dtype", None) is torch.bool for arg in args):
            name = "bitwise_and"
        if name in _LOGICAL:
            numbers = [self._truth(arg) for arg in args]
            if name.endswith("not"):
                return apply("eq", *numbers, const(0))
            return apply("ne", apply(_LOGICAL[name], *numbers), const(0))
        if name == "detach":
            return self._detached(self.node(args[0]))
        name = "sign" if name == "sgn" else name
        if len(args) == (3 if name == "where" else 2) and name in COMPARISONS | BINARY | {"where"}:
            return apply(name, *map(self.node, args))
        if name in UNARY and len(args) == 1:
            return apply(name, self.node(args[0]))
        raise Untraceable(f"aten.{name}{_instead(name)}")

    def _whole_quotient(self, rounding: str, a: Node, b: Node) -> Node:
        """Rounded division, exact up to rounding of the quotient: enough for derivatives."""
        apply, quotient = self.graph.apply, self.graph.apply("div", a, b)
        if rounding == "floor":
            return apply("floor", quotient)
        is_below = apply("lt", quotient, self.graph.const(0))
        below = apply("neg", apply("floor", apply("neg", quotient)))
        return apply("where", is_below, below, apply("floor", quotient))

    def _detached(self, node: Node) -> Node:
        """A detached node: itself, since first derivatives are not differentiated again."""
        return node

    def _power(self, base: Any, exponent: Any) -> Node:
        apply, const, a = self.graph.apply, self.graph.const, self.node(base)
        if not isinstance(exponent, Tensor):
            if exponent in _POWERS:
                return _POWERS[exponent](apply, const, a)
            if exponent == int(exponent) and abs(exponent) <= _LARGEST_POWER:
                power = reduce(partial(apply, "mul"), [a] * abs(int(exponent)), const(1))
                return power if exponent >= 0 else apply("reciprocal", power)
        p, zero, one = self._number(exponent), const(0), const(1)
        is_zero = apply("eq", a, zero)  # has no logarithm
        at_zero = apply("where", apply("eq", p, one), a, zero)
        at_zero = apply("where", apply("gt", p, zero), at_zero, const(math.inf))
        at_zero = apply("where", apply("eq", p, zero), one, at_zero)
        base = apply("where", is_zero, one, a)
        power = apply("exp", apply("mul", p, apply("log", apply("abs", base))))
        is_odd = apply("eq", apply("remainder", p, const(2)), one)
        signed = apply("where", is_odd, apply("neg", power), power)
        none = apply("mul", p, apply("log", apply("sign", base)))  # NaN, also as p's gradient
        below = apply("where", apply("eq", apply("floor", p), p), signed, none)
        power = apply("where", apply("lt", base, zero), below, power)
        return apply("where", is_zero, at_zero, power)


_LARGEST_POWER = 16
_POWERS: dict[Any, Callable[..., Node]] = {
    1: lambda apply, const, a: a,
    2: lambda apply, const, a: apply("mul", a, a),
    3: lambda apply, const, a: apply("mul", a, apply("mul", a, a)),
    0.5: lambda apply, const, a: apply("sqrt", a),
    -0.5: lambda apply, const, a: apply("rsqrt", a),
    -1: lambda apply, const, a: apply("reciprocal", a),
}

_LOGICAL = {
    f"{kind}_{name}": op
    for kind in ("bitwise", "logical")
    for name, op in {"and": "mul", "or": "add", "xor": "sub", "not": ""}.items()
}
"""The arithmetic on 1 and 0 that equals each logical operation; nonzero counts as true."""

VIEWS = _SAME | _PIECES | _TURNED
POINTWISE = (
    {*_LOGICAL} | FILLS | _JOINED | UNARY | BINARY | COMPARISONS
    | {"rsub", "where", "square", "pow", "sgn", "clamp", "clamp_min", "clamp_max"}
    | {"sigmoid_backward", "tanh_backward", "threshold_backward"}
)  # fmt: skip
"""Pointwise operations, and concatenation."""
_KNOWN = VIEWS | POINTWISE | _REDUCED | NORMALISED | {"mm", "addmm", "bmm", "copy"}


def _instead(name: str) -> str:
    """The end of a refusal's reason: what to write instead of an operation."""
    return f"; instead: {INSTEAD[name]}" if name in INSTEAD else ""


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


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one storage may overlap."""
    if a.dim() != 2 or a.stride() != b.stride() or a.stride(1) != 1:
        return True
    first, second = (t.storage_offset() % t.stride(0) for t in (a, b))
    return first < second + b.shape[1] and second < first + a.shape[1]


def memory_of(tensor: Tensor) -> int:
    """A key of a tensor's storage, equal for aliases."""
    return tensor.untyped_storage()._cdata


def _told(value: Any, meaning: Any) -> str:
    if isinstance(meaning, str):
        return meaning
    if isinstance(meaning, Weight):
        return f"the matrix {meaning.name}"
    if isinstance(meaning, Node):
        return "something computed"
    if isinstance(value, Tensor) and value.dim() > 2:
        return f"a tensor of {value.dim()} dimensions"
    if isinstance(value, Tensor):
        return f"a tensor from elsewhere, {tuple(value.shape)}"
    return type(value).__name__
