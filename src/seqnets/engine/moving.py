"""Units of a row in other places, added up, or repeated: products by matrices of ones and zeros.

A loop computes each unit by itself. What an operation makes of one unit from others it can read as
a product, and the matrix is what the same operation makes of the identity's rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

from seqnets.engine.graph import COMPARISONS, Graph, Node, Untraceable, Weight
from seqnets.engine.prepared import Preparing
from seqnets.engine.recorder import POINTWISE, VIEWS

_KNOWN = (VIEWS - {"_to_copy", "detach"}) | {"mm", "bmm", "sum", "mean"}
_LINEAR = _KNOWN | {"flip", "roll", "cumsum", "index", "index_select", "repeat"}
"""Operations that are linear in the units of a row; and which a recorder may know already."""
_PIECES = 8  # so many may be written down one by one
_SMALL, _SQUARE = 2**16, 4  # the numbers of a matrix; the most by which it may be wider than high


class Moving(Preparing):
    """Writes down a step, what is made of its parameters, and how units of a row are moved."""

    def __init__(self, graph: Graph, rows: int, dtypes: set[torch.dtype], *, scalar: bool) -> None:
        super().__init__(graph, rows, dtypes, scalar=scalar)
        self._identities: dict[int, Tensor] = {}
        self._repeated: dict[int, Tensor] = {}  # what is made of parameters alone, for all rows

    def identity(self, size: int) -> Weight:
        """The matrix of so many units that changes nothing."""
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
        if name == "bmm" and len(rows) == 2 and self._rows == rows[0].shape[0] == rows[1].shape[0]:
            return self._contracted(func, *rows)
        if name in _LINEAR and len(rows) == 1:
            return self._linear(func, name, args, kwargs, rows[0])
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if name in VIEWS and not rows and isinstance(result, Tensor) and self._rows in result.shape:
            whole = self._repeated.get(id(args[0]), args[0])
            if name == "expand" or args[0].shape == result.shape:
                self._repeated[id(result)] = whole
        return result

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
        if [*row.shape].count(self._rows) != 1 or [*result.shape].count(self._rows) != 1:
            raise reason
        before, after = row.shape.index(self._rows), result.shape.index(self._rows)
        sizes = [size for size in row.shape if size != self._rows]
        width = math.prod(sizes)

        def made(ones: Tensor) -> Tensor:
            def instead(part: Any) -> Any:
                if part is row:
                    return _moved(ones.view(-1, *sizes) if len(sizes) != 1 else ones, 0, before)
                if isinstance(part, Tensor) and id(part) in self._repeated:
                    shape = [len(ones) if size == self._rows else size for size in part.shape]
                    return self._repeated[id(part)].expand(shape)
                return len(ones) if type(part) is int and part == self._rows else part

            found = _moved(func(*tree_map(instead, args), **kwargs), after, 0)
            return found if found.dim() == 2 else found.flatten(1)

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
        high, wide = matrix.shape
        near = high <= _SQUARE * wide and wide <= _SQUARE * high
        if high * wide > _SMALL and not near:
            raise Untraceable(f"{wide} numbers a row that are made of {high} others")
        weight = self._matrix(matrix)
        if not isinstance(weight, Weight):
            raise Untraceable(f"{high} numbers a row in other places")
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
        if self._rows not in shape:
            return value
        sizes = [1] * (len(shape) - value.dim()) + [*value.shape]
        have = [size for size, all_ in zip(sizes, shape, strict=True) if all_ != self._rows]
        want = [size for size in shape if size != self._rows]
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
                    with self:
                        ones = torch.eye(outer * inner).view(-1, outer, 1, inner)
                        matrix = ones.expand(-1, outer, size, inner).flatten(1)
                    node = self._times(node, matrix)
                have[dim] = size
        return node

    def _contracted(self, func: Any, left: Tensor, right: Tensor) -> Tensor:
        """A product of matrices of which each row has its own."""
        result = func(left, right)
        n, m, k = left.shape[1], *right.shape[1:]
        each = self.graph.apply(
            "mul",
            self._expanded(self.node(left), (n, m, 1), (n, m, k)),
            self._expanded(self.node(right), (1, m, k), (n, m, k)),
        )
        if n * k == 1:
            total = self.graph.reduce("sum", each)
        else:
            with self:
                matrix = torch.eye(n * m * k).view(-1, n, m, k).sum(2).flatten(1)
            total = self._times(each, matrix)
        self.name(result, total)
        return result


def _moved(tensor: Tensor, dim: int, to: int) -> Tensor:
    return tensor if dim == to else tensor.movedim(dim, to)
