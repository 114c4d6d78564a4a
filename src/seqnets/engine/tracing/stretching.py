"""Tracing of arithmetic that repeats units: broadcasts, and products of two matrices of each row.

Pointwise nodes have one number for each unit. Units that are read several times are repeated
first: piece by piece if they are few, else by a product with a matrix of ones and zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.graph import Node
from seqnets.engine.tracing.folding import Folding
from seqnets.engine.tracing.moving import FEW, check_size, pieces_in
from seqnets.engine.tracing.recorder import POINTWISE


class Stretching(Folding):
    """A recorder that also repeats units where arithmetic broadcasts them."""

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if name == "bmm":
            rows = self._in_rows(args, kwargs)
            if len(rows) == 2 and all(0 in self._places(row) for row in rows):
                return self._contracted(func, *rows)
        return super()._result_of(func, name, args, kwargs)

    def _pointwise(self, name: str, args: tuple[Any, ...], kwargs: Any) -> Node:
        if name in POINTWISE:
            tensors = [arg for arg in args if isinstance(arg, Tensor)]
            shape = torch.broadcast_tensors(*tensors)[0].shape  # broadcast_shapes loads sympy
            args = tuple([self._broadcast(arg, shape) for arg in args])
        return super()._pointwise(name, args, kwargs)

    def _broadcast(self, value: Any, shape: Sequence[int]) -> Any:
        """An operand of pointwise arithmetic, broadcast to the units of the result."""
        if not isinstance(value, Tensor) or shape == value.shape:
            return value
        if value.numel() == 1 and value.dim() < 3:
            return value
        places = self.units.places(shape)
        if len(places) != 1:
            return value
        sizes = [1] * (len(shape) - value.dim()) + [*value.shape]
        have, want = ([*each] for each in (sizes, shape))
        for each in (have, want):
            each[places[0]] = max(1, each[places[0]] // self._rows)
        if self._is_hoisted(value):
            if have == want and value.dim() == 1:
                return value
            with self:
                return value.reshape(have).expand(want).reshape(-1)
        if have == want or math.prod(have) == 1 or not self.node(value).width:
            return value
        stand_in = torch.empty(0, dtype=value.dtype)
        expanded = self._expanded(self.number(value), have, want)
        self.set_meaning(stand_in, self.as_in(value, expanded))
        return stand_in

    def _expanded(self, node: Node, have: Sequence[int], want: Sequence[int]) -> Node:
        """Broadcast units of shape ``have`` along its dimensions of size 1 to shape ``want``."""
        have = list(have)
        for dim, size in enumerate(want):
            if have[dim] != size:
                outer, inner = math.prod(have[:dim]), math.prod(have[dim + 1 :])
                node = self._stretched(self.graph.spread(node, outer * inner), outer, size, inner)
                have[dim] = size
        return node

    def _stretched(self, node: Node, outer: int, size: int, inner: int) -> Node:
        """Units of shape (outer, 1, inner), broadcast to (outer, size, inner)."""
        few = pieces_in(node) == outer if inner == 1 else outer * size <= FEW
        if few:
            return self.units.stretched(node, outer, size, inner)
        check_size(outer * inner, outer * inner * size)
        with self:
            ones = torch.eye(outer * inner).view(-1, outer, 1, inner)
            matrix = ones.expand(-1, outer, size, inner).flatten(1)
        return self._times(node, matrix)

    def _contracted(self, func: Any, left: Tensor, right: Tensor) -> Tensor:
        """A batched product of two matrices that both differ from row to row."""
        result = func(left, right)
        heads, (n, m), k = left.shape[0] // self._rows, left.shape[1:], right.shape[2]
        each = self.graph.apply(
            "mul",
            self._expanded(self.node(left), (heads, n, m, 1), (heads, n, m, k)),
            self._expanded(self.node(right), (heads, 1, m, k), (heads, n, m, k)),
        )
        if m == 1:
            total = each
        elif heads * n * k == 1:
            total = self.graph.reduce("sum", each)
        else:
            check_size(heads * n * m * k, heads * n * k)
            with self:
                ones = torch.eye(heads * n * m * k).view(-1, heads * n, m, k)
                matrix = ones.sum(2).flatten(1)
            total = self._times(each, matrix)
        self.set_meaning(result, total)
        return result
