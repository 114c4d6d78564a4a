"""Units of a row in other places, added up, or repeated: products by matrices of ones and zeros.

A loop computes each unit by itself. What an operation makes of one unit from others it can read as
a product, and the matrix is what the same operation makes of the identity's rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from seqnets.engine.graph import COMPARISONS, Graph, Node, Untraceable, Weight
from seqnets.engine.prepared import Preparing
from seqnets.engine.recorder import POINTWISE, VIEWS

_KNOWN = (VIEWS - {"_to_copy"}) | {"mm", "bmm", "sum", "mean"}
_LINEAR = _KNOWN | {"flip", "roll", "cumsum", "index", "index_select", "repeat"}
"""Operations that are linear in the units of a row; and which a recorder may know already."""
_PIECES = 8  # so many may be written down one by one
_SMALL, _SQUARE = 2**16, 4  # the numbers of a matrix; the most by which it may be wider than high
_WIDEST = 4096  # units that are moved at once


class Moving(Preparing):
    """Writes down a step, what is made of its parameters, and how units of a row are moved.

    Attributes:
        functions: Those with a backward pass of their own that it knows of.
    """

    functions: Set[type] = frozenset()

    def __init__(self, graph: Graph, rows: int, dtypes: set[torch.dtype], *, scalar: bool) -> None:
        super().__init__(graph, rows, dtypes, scalar=scalar)
        self._identities: dict[int, Tensor] = {}
        # what is made of parameters alone and stands in all rows: as that of so many rows
        self._repeated: dict[int, Callable[[int], Tensor]] = {}

    def identity(self, size: int) -> Weight:
        """The matrix of so many units that changes nothing."""
        _check_size(size, size)
        if size not in self._identities:
            with self:
                self._identities[size] = torch.eye(size)
        found = self._matrix(self._identities[size])
        assert isinstance(found, Weight)  # of as many rows as columns, and more than one
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.removeprefix("aten::")
        rows = [
            tensor
            for tensor in tree_iter((args, kwargs))
            if isinstance(tensor, Tensor) and not self._is_made(tensor)
            if id(tensor) not in self._repeated
        ]
        if name == "bmm" and len(rows) == 2 and all(0 in self._places(row) for row in rows):
            return self._contracted(func, *rows)
        if name == "addmm" and not kwargs and not self._is_matrix(args[1]):
            with self:
                return torch.mm(*args[1:]) + args[0]
        if name in _LINEAR and len(rows) == 1:
            return self._linear(func, name, args, kwargs, rows[0])
        if rows or name not in VIEWS:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if id(args[0]) not in self._repeated:
            result = super().__torch_dispatch__(func, types, args, kwargs)
        else:
            result = func(*args, **kwargs)
            self.name(result, None)
        named = not isinstance(result, Tensor) or self._meaning.get(id(result)) is not None
        if not named and self._places(result):
            self._repeated[id(result)] = lambda count: self._again(func, args, kwargs, count)
        return result

    def _again(self, func: Any, args: Any, kwargs: Any, count: int) -> Any:
        """What an operation makes of what stands in all rows, if these are so many."""

        def instead(part: Any) -> Any:
            if isinstance(part, Tensor):
                repeated = self._repeated.get(id(part))
                return part if repeated is None else repeated(count)
            return self._fewer(part, count) if type(part) is int else part

        return func(*tree_map(instead, args), **kwargs)

    def _fewer(self, size: int, count: int) -> int:
        """A size of all rows as that of so many."""
        return size // self._rows * count if size and size % self._rows == 0 else size

    def _places(self, tensor: Tensor) -> list[int]:
        return self.units.places(tensor.shape)

    def _is_matrix(self, tensor: Tensor) -> bool:
        """Whether a matrix has a line for each row, or none of rows."""
        return tensor.shape[0] == self._rows or not self._places(tensor)

    def _linear(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], row: Tensor
    ) -> Any:
        """A sum of units of one tensor for each of another: as it stands, or as a product."""
        reason = Untraceable(f"aten.{name} across rows")
        if name in _KNOWN and (name not in ("sum", "mean") or self._is_short(row, *args[1:])):
            try:
                result = super().__torch_dispatch__(func, (), args, kwargs)
            except Untraceable as untraceable:
                reason = untraceable
            else:
                listed = result if isinstance(result, (list, tuple)) else [result]
                if all(self._meaning.get(id(tensor)) is not None for tensor in listed):
                    return result
        result, node = func(*args, **kwargs), self._meaning_of(row)
        if not isinstance(node, Node) or not isinstance(result, Tensor):
            raise reason
        if len(self._places(row)) != 1 or len(self._places(result)) != 1:
            raise reason
        (before,), (after,) = self._places(row), self._places(result)
        width = row.numel() // self._rows
        _check_size(width, result.numel() // self._rows)

        def made(ones: Tensor) -> Tensor:
            shape = [self._fewer(size, len(ones)) for size in row.shape]
            first = shape.pop(before)
            self._repeated[id(row)] = lambda _: ones.view(first, *shape).movedim(0, before)
            try:
                found = self._again(func, args, kwargs, len(ones))
            finally:
                del self._repeated[id(row)]
            return found.movedim(after, 0).reshape(len(ones), -1)

        ones = torch.eye(width, dtype=result.dtype)
        if not torch.equal(made(ones[-1:]), made(ones)[-1:]):
            raise reason
        with self:
            matrix = made(torch.eye(width, dtype=result.dtype))
        self.name(result, self._times(self.graph.spread(node, width), matrix))
        return result

    def _is_short(self, row: Tensor, dims: Sequence[int] | None = None, *_: Any) -> bool:
        """Whether a sum is over the last units, or of few terms for few units."""
        if not dims or len(dims) != 1 or row.dim() < 3 or row.shape[0] != self._rows:
            return True
        dim = dims[0] % row.dim()
        outer, inner = math.prod(row.shape[1:dim]), math.prod(row.shape[dim + 1 :])
        return outer * (1 if inner == 1 else row.shape[dim]) <= _PIECES

    def _times(self, node: Node, matrix: Tensor) -> Node:
        """Units by a matrix, (from, to), that is made of no parameter."""
        weight = self._matrix(matrix)
        if not isinstance(weight, Weight):  # it is as large as a multiple of the rows
            raise Untraceable(f"{len(matrix)} numbers a row in other places")
        if node.op not in COMPARISONS:
            return self.times(node, weight.transposed)
        zero, one = map(self.graph.const, (0, 1))
        number = self.graph.apply("where", node, one, zero)
        return self.graph.apply("ne", self.times(number, weight.transposed), zero)

    def _pointwise(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        if name in POINTWISE:
            shapes = [arg.shape for arg in args if isinstance(arg, Tensor)]
            shape = torch.broadcast_shapes(*shapes)
            args = tuple([self._broadcast(arg, shape) for arg in args])
        return super()._pointwise(name, args, kwargs)

    def _broadcast(self, value: Any, shape: Sequence[int]) -> Any:
        """An argument of arithmetic between tensors, as units of so many as the result has."""
        if not isinstance(value, Tensor) or value.numel() == 1 or shape == value.shape:
            return value
        places = self.units.places(shape)
        if len(places) != 1:
            return value
        sizes = [1] * (len(shape) - value.dim()) + [*value.shape]
        have, want = ([*each] for each in (sizes, shape))
        for each in (have, want):
            each[places[0]] = max(1, each[places[0]] // self._rows)
        if self._is_made(value):
            if have == want and value.dim() == 1:
                return value
            with self:
                return value.reshape(have).expand(want).reshape(-1)
        if have == want or math.prod(have) == 1 or not self.node(value).width:
            return value
        stand_in = torch.empty(0)
        self.name(stand_in, self._expanded(self.node(value), have, want))
        return stand_in

    def _expanded(self, node: Node, have: Sequence[int], want: Sequence[int]) -> Node:
        """Units that lie as the dimensions say, in dimensions of which some were of size 1."""
        have = list(have)
        for dim, size in enumerate(want):
            if have[dim] != size:
                outer, inner = math.prod(have[:dim]), math.prod(have[dim + 1 :])
                node = self.graph.spread(node, outer * inner)
                if outer * inner == 1:
                    node = self.graph.spread(node, size)
                elif inner > 1 and outer * size <= _PIECES:
                    rows = [self.graph.part(node, i * inner, inner) for i in range(outer)]
                    node = self.graph.cat(*(row for row in rows for _ in range(size)))
                else:
                    _check_size(outer * inner, outer * inner * size)
                    with self:
                        ones = torch.eye(outer * inner).view(-1, outer, 1, inner)
                        matrix = ones.expand(-1, outer, size, inner).flatten(1)
                    node = self._times(node, matrix)
                have[dim] = size
        return node

    def _contracted(self, func: Any, left: Tensor, right: Tensor) -> Tensor:
        """A product of matrices of which each row has its own."""
        result = func(left, right)
        heads, (n, m), k = left.shape[0] // self._rows, left.shape[1:], right.shape[2]
        each = self.graph.apply(
            "mul",
            self._expanded(self.node(left), (heads, n, m, 1), (heads, n, m, k)),
            self._expanded(self.node(right), (heads, 1, m, k), (heads, n, m, k)),
        )
        if heads * n * k == 1:
            total = self.graph.reduce("sum", each)
        else:
            _check_size(heads * n * m * k, heads * n * k)
            with self:
                ones = torch.eye(heads * n * m * k).view(-1, heads * n, m, k)
                matrix = ones.sum(2).flatten(1)
            total = self._times(each, matrix)
        self.name(result, total)
        return result


def _check_size(high: int, wide: int) -> None:
    """Raise unless it takes a loop not much longer to multiply by a matrix than it waits for torch.

    Args:
        high: Units of a row that are moved.
        wide: How many are made of them.
    """
    near = high <= _SQUARE * wide and wide <= _SQUARE * high
    if max(high, wide) > _WIDEST or (high * wide > _SMALL and not near):
        raise Untraceable(f"{wide} numbers a row that are made of {high} others")
