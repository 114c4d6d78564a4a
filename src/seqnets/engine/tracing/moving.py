"""Tracing of linear data movement (flip, roll, cumsum, convolution, …) as products.

A loop cannot exchange units other than by a product. So an operation that is linear in the units of
a row becomes a product by a constant matrix: what the operation makes of the identity's rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from seqnets.engine.graph import Node, Untraceable
from seqnets.engine.preparation import listed
from seqnets.engine.step import Weight
from seqnets.engine.tracing.preparing import Preparing
from seqnets.engine.tracing.reductions import NORMALISED
from seqnets.engine.tracing.views import VIEWS

_KNOWN = (VIEWS - {"_to_copy", "lift_fresh"}) | {"mm", "bmm", "sum", "mean"}
_LINEAR = _KNOWN | {
    "flip", "roll", "cumsum", "index", "index_select", "gather", "repeat", "constant_pad_nd",
    "unfold", "diagonal", "convolution", "avg_pool2d",
}  # fmt: skip
"""Operations that are linear in the units of a row; ``Recorder`` handles some forms of _KNOWN."""
_AS_IN_MEMORY = {"aten::view", "aten::_unsafe_view"}  # need compatible strides
FEW = 8  # the most pieces that are recorded one by one
_SMALL, _LARGE = 2**16, 2**20  # the most elements of a matrix; of one that is nearly square
_SQUARE = 4  # the largest aspect ratio of that
_WIDEST = 4096  # the most units of a side


class Moving(Preparing):
    """Records a step, hoists operations on parameters, and turns data movement into products."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._identities: dict[int, Tensor] = {}
        # what depends on parameters alone but has a dimension of rows: recomputed for another count
        self._repeated: dict[int, Callable[[int], Tensor]] = {}

    def identity(self, size: int) -> Weight:
        """The identity matrix of a size."""
        check_size(size, size)
        if size not in self._identities:
            with self:
                self._identities[size] = torch.eye(size)
        found = self.matrix(self._identities[size])
        assert isinstance(found, Weight)  # square, larger than 1
        return found

    def moves_units(self, weight: Weight) -> bool:
        """Whether each unit of a product by a weight is one of those that it multiplies, or 0."""
        if weight.name not in self.preparation(self.shapes).constants:
            return False
        matrix = weight.of(self._parameters[weight.name])
        return bool(((matrix == 0) | (matrix == 1)).all() and (matrix.sum(1) <= 1).all())

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        rows = self._in_rows(args, kwargs)
        if (simpler := self._by_others(func, name, args, kwargs, rows)) is not None:
            return simpler
        if name in _LINEAR and len(rows) == 1:
            return self._linear(func, name, args, kwargs, rows[0])
        if name in NORMALISED | {"amax"} and (to := self._better(*args[:2])) is not None:
            with self:
                if name in NORMALISED and to == 1 and self._is_spread(*args[:2]):
                    return _normalised(name, *args[:2])
                return self._with_dim_moved(func, to, *args)
        if name in VIEWS | {"repeat"} and not rows:
            return self._hoisted_view(func, name, args, kwargs)
        return super()._result_of(func, name, args, kwargs)

    def _by_others(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any, rows: list[Tensor]
    ) -> Tensor | None:
        """The result of an operation by others that can be recorded; None if it needs none."""
        turned = name == "addmm" and not all(map(self._is_matrix, args[1:]))
        if turned and not kwargs:
            with self:
                return torch.mm(*args[1:]) + args[0]
        if name == "convolution" and rows and args[0].dim() > 3:
            raise Untraceable("aten.convolution of frames, as a dense matrix would be slower")
        if name == "convolution" and args[2] is not None:
            with self:
                bias = args[2].view(-1, *[1] * (args[0].dim() - 2))
                return func(*args[:2], None, *args[3:]) + bias
        if name == "constant_pad_nd" and len(args) > 2 and args[2] and rows:
            with self:
                return _padded(*args)
        return None

    def _hoisted_view(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        """A view of what depends on parameters alone; it may have a dimension of rows."""
        if id(args[0]) not in self._repeated:
            result = super()._result_of(func, name, args, kwargs)
        else:
            result = func(*args, **kwargs)
            self.set_meaning(result, None)
        if isinstance(result, Tensor) and self._places(result) and not self._is_known(result):
            self._repeated[id(result)] = lambda count: self._again(func, args, kwargs, count)
        return result

    def _in_rows(self, *given: Any) -> list[Tensor]:
        """The tensors among arguments whose values differ from row to row."""
        return [
            tensor
            for tensor in tree_iter(given)
            if isinstance(tensor, Tensor) and not self._is_hoisted(tensor)
            if id(tensor) not in self._repeated
        ]

    def node(self, value: Any) -> Node:
        """The node of a tensor or number; of a repeated one, that of what each row has."""
        if (repeated := self._repeated.get(id(value))) is not None:
            with self:
                value = repeated(1).reshape(-1)
        return super().node(value)

    def change(self, name: str, tensor: Tensor) -> None:
        """Invalidate the aliases of a tensor that is about to change in place, repeated or not."""
        super().change(name, tensor)
        for other in self.sharing(tensor):
            self._repeated.pop(id(other), None)

    def with_part(self, whole: Tensor, part: Tensor, new: Tensor) -> Tensor | None:
        """As in ``Meanings``; of a repeated tensor, each row has its own from now on."""
        if id(whole) in self._repeated:
            self.set_meaning(whole, self.node(whole))
        return super().with_part(whole, part, new)

    def _is_known(self, tensor: Tensor) -> bool:
        """Whether a tensor has a meaning, and holds numbers or booleans rather than indices."""
        number = tensor.is_floating_point() or tensor.dtype == torch.bool
        return number and self._meaning.get(id(tensor)) is not None

    def _again(self, func: Any, args: Any, kwargs: Any, count: int) -> Any:
        """Repeat an operation on repeated operands, for ``count`` rows."""

        def instead(part: Any) -> Any:
            if isinstance(part, Tensor):
                repeated = self._repeated.get(id(part))
                return part if repeated is None else repeated(count)
            return self._fewer(part, count) if type(part) is int else part

        if func._schema.name in _AS_IN_MEMORY:
            func = torch.reshape
        return func(*tree_map(instead, args), **kwargs)

    def _fewer(self, size: int, count: int) -> int:
        """A size in terms of ``count`` rows instead of the batch's."""
        return size // self._rows * count if size and size % self._rows == 0 else size

    def _places(self, tensor: Tensor) -> list[int]:
        return self.units.places(tensor.shape)

    def _is_matrix(self, tensor: Tensor) -> bool:
        """Whether a matrix has rows in its first dimension, or none at all."""
        return tensor.shape[0] == self._rows or not self._places(tensor)

    def _linear(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], row: Tensor
    ) -> Any:
        """Record a linear operation on one tensor: as the base class does, or as a product."""
        reason = Untraceable(f"aten.{name} across rows")
        if name in _KNOWN and (name not in ("sum", "mean") or self._is_short(row, *args[1:])):
            try:
                result = super()._result_of(func, name, args, kwargs)
            except Untraceable as untraceable:
                reason = untraceable
            else:
                known = [self._meaning.get(id(tensor)) is not None for tensor in listed(result)]
                if all(known) and not self._is_scattered(row, listed(result)):
                    return result
        result = func(*args, **kwargs)
        self._check_exact(name, row, listed(result))
        self._check_units(row, listed(result), reason)

        def made(ones: Tensor) -> list[Tensor]:
            return self._made_of(ones, func, args, kwargs, row, listed(result))

        whole = self.graph.spread(self.number(row), row.numel() // self._rows)
        ones = torch.eye(whole.width, dtype=listed(result)[0].dtype)
        if not all(map(torch.equal, made(ones[-1:]), (part[-1:] for part in made(ones)))):
            raise reason
        if any(part.any() for part in made(0 * ones[:1])):
            raise Untraceable(f"aten.{name} that fills in a number other than 0")
        with self:
            matrices = made(torch.eye(whole.width, dtype=ones.dtype))
        for tensor, matrix in zip(listed(result), matrices, strict=True):
            self.set_meaning(tensor, self.as_in(tensor, self._times(whole, matrix)))
        return result

    def _check_exact(self, name: str, row: Tensor, results: Sequence[Tensor]) -> None:
        """Raise if results are rounded as nodes cannot be, or counts that may overflow."""
        counts = {torch.bool, torch.int64}
        for made in (tensor.dtype for tensor in results):
            wider = torch.promote_types(row.dtype, made) == made
            exact = made in counts if row.dtype == torch.bool else wider
            if made not in self.dtypes and not exact:
                raise Untraceable(f"aten.{name} of {row.dtype}, which is {made}")

    def _check_units(self, row: Tensor, results: Sequence[Tensor], reason: Untraceable) -> None:
        """Raise, most often for the given reason, unless units of rows become units of rows."""
        if not isinstance(self.meaning_of(row), Node):
            raise reason
        if not all(tensor.numel() for tensor in results):
            raise Untraceable(
                "units picked by a mask, as many as are true, or a part of no units; instead: "
                "their places as numbers, or torch.where"
            )
        if any(len(self._places(tensor)) != 1 for tensor in (row, *results)):
            raise reason
        for tensor in results:
            check_size(row.numel() // self._rows, tensor.numel() // self._rows)

    def _made_of(
        self, ones: Tensor, func: Any, args: Any, kwargs: Any, row: Tensor, results: list[Tensor]
    ) -> list[Tensor]:
        """Apply an operation to other rows, given as (rows, units): each result likewise."""
        (before,) = self._places(row)
        shape = list(row.shape)
        shape[before] //= self._rows
        made = ones.view(len(ones), *shape).movedim(0, before).flatten(before, before + 1)
        self._repeated[id(row)] = lambda _: made
        try:
            found = listed(self._again(func, args, kwargs, len(ones)))
        finally:
            del self._repeated[id(row)]
        firsts = (self._places(tensor)[0] for tensor in results)
        return [
            part.unflatten(after, (len(ones), -1)).movedim(after, 0).reshape(len(ones), -1)
            for part, after in zip(found, firsts, strict=True)
        ]

    def _is_scattered(self, row: Tensor, made: Sequence[Tensor]) -> bool:
        """Whether a result is fragmented into so many pieces that a product is better."""
        before, *after = (pieces_in(self._meaning.get(id(tensor))) for tensor in (row, *made))
        width = row.numel() // self._rows
        return max(after) > max(FEW, before) and _pays(width, width)

    def _is_short(self, row: Tensor, dims: Sequence[int] | None = None, *_: Any) -> bool:
        """Whether a reduction takes few pieces: along the last dimension, or of few terms."""
        if not dims or len(dims) != 1 or row.dim() < 3 or row.shape[0] != self._rows:
            return True
        dim = dims[0] % row.dim()
        outer, inner = math.prod(row.shape[1:dim]), math.prod(row.shape[dim + 1 :])
        return outer == inner == 1 or outer * row.shape[dim] <= FEW

    def _better(self, row: Tensor, dims: Any = ()) -> int | None:
        """The place to which a reduced dimension is best moved; None if it may stay."""
        dims = [dims] if isinstance(dims, int) else dims
        if row.dim() < 3 or row.shape[0] != self._rows or self._is_short(row, dims):
            return None
        size, width = row.shape[dims[0]], row.numel() // self._rows
        better = 1 if size * size < width else row.dim() - 1
        return None if better == dims[0] % row.dim() or not _pays(width, width) else better

    def _is_spread(self, row: Tensor, dim: int) -> bool:
        """Whether one product spreads a number of each group to its units, which are many."""
        size, width = row.shape[dim], row.numel() // self._rows
        return size > FEW and _pays(width // size, width)

    @staticmethod
    def _with_dim_moved(func: Any, to: int, row: Tensor, dims: Any, *args: Any) -> Tensor:
        """Run a reduction with its dimension moved to another place."""
        dim = dims if isinstance(dims, int) else dims[0]
        result = func(row.movedim(dim, to), to if dim is dims else [to], *args)
        return result.movedim(to, dim) if result.dim() == row.dim() else result

    def _times(self, node: Node, matrix: Tensor) -> Node:
        """``node @ matrix``, by a constant matrix (from, to)."""
        with self:
            weight = self.matrix(matrix.t().flatten().view(matrix.shape[::-1]))  # turned once
        if not isinstance(weight, Weight):  # a size is a multiple of the rows
            raise Untraceable(f"moving {len(matrix)} numbers of each row to other places")
        return self.times(node, weight)

    def placed(self, whole: Node, numbers: Node, places: Sequence[int]) -> Node:
        """As in ``Meanings``: the numbers are moved there by a product."""
        check_size(numbers.width, whole.width)
        with self:
            matrix = torch.eye(whole.width)[list(places)]
            written = matrix.sum(0)
        here = self.graph.apply("ne", self.node(written), self.graph.const(0))
        return self.graph.apply("where", here, self._times(numbers, matrix), whole)

    def _joined(self, name: str, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Node:
        node = super()._joined(name, result, tensors, dim)
        alike = all(tensor.shape[:1] == (self._rows,) for tensor in tensors)
        few = pieces_in(node) <= FEW * len(tensors)
        if few or not alike or not _pays(node.width, node.width):
            return node
        widths = [tensor.numel() // self._rows for tensor in tensors]
        numbers = map(self.graph.spread, map(self.number, tensors), widths)
        with self:
            ones = torch.eye(sum(widths)).split(widths, 1)
            each = [o.reshape(-1, *t.shape[1:]) for o, t in zip(ones, tensors, strict=True)]
            matrix = (torch.cat if name == "cat" else torch.stack)(each, dim).flatten(1)
        return self.as_in(result, self._times(self.graph.cat(*numbers), matrix))


def pieces_in(meaning: Any) -> int:
    """The number of pieces of a concatenation; 1 for anything else."""
    return len(meaning.pieces) if isinstance(meaning, Node) else 1


def _padded(x: Tensor, sizes: Sequence[int], value: float) -> Tensor:
    """Padding with a nonzero value: zero padding, then a choice by a constant mask."""
    inside = torch.constant_pad_nd(torch.ones(x.shape[1:], dtype=torch.bool), sizes, False)
    return torch.where(inside, torch.constant_pad_nd(x, sizes), float(value))


def _normalised(name: str, x: Tensor, dim: int) -> Tensor:
    """Softmax or log-softmax in many groups of many units, of which only the largest are moved."""
    largest = x.movedim(dim, 1).detach().amax(1).unsqueeze(dim)
    below = x - largest.expand_as(x)
    exponentials = below.exp()
    total = exponentials.sum(dim, keepdim=True)
    if name == "_softmax":
        return exponentials * total.reciprocal().expand_as(x)
    return below - total.log().expand_as(x)


def _pays(high: int, wide: int) -> bool:
    """Whether a product by a dense matrix is not much slower than leaving the loop for torch.

    Args:
        high: Units of a row that it reads.
        wide: Units that it makes.
    """
    near = high <= _SQUARE * wide and wide <= _SQUARE * high
    return max(high, wide) <= _WIDEST and high * wide <= (_LARGE if near else _SMALL)


def check_size(high: int, wide: int) -> None:
    """Raise unless it pays."""
    if not _pays(high, wide):
        raise Untraceable(
            f"{wide} numbers a row that are made of {high} others; instead: smaller matrices or "
            f"fewer units, or a MatrixMemoryCell"
        )
