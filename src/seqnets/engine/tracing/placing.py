"""Tracing of data-dependent indices: argmax, max, topk, gather, scatter and indexing by them.

An index is traced as a number per row. Reading or writing at it compares it with the numbers of all
positions, so that only comparisons, reductions and products remain.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.graph import Untraceable
from seqnets.engine.tracing.reductions import over_others
from seqnets.engine.tracing.stretching import Stretching

_PLACED = {"argmax", "argmin", "max", "min", "topk", "gather", "scatter"}
"""Operations that compute indices or read them."""
_UNORDERED = (
    "the places of topk, which has no order among equals; instead: x >= topk(x, k)[0][..., -1:]"
)
_END = "the first and the last place"  # F.one_hot reads both
_ENDS = {"aminmax", "min", "max"}  # the latter two in torch 2.11
_PLACES = 8  # the most indices per row, each read by a reduction
_FOUND = 4  # the most that topk finds, each by two reductions


class Placing(Stretching):
    """A recorder that also traces data-dependent indices.

    Attributes:
        chooses: Whether it has chosen among units whose order torch leaves open if they are equal.
        functions: The custom autograd functions that it has recorded.
    """

    chooses = False
    functions: Set[type] = frozenset()

    def _result_of(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:
        if name in _ENDS and len(args) == 1 and not kwargs and args[0].dtype == torch.int64:
            result = func(*args)
            for end in (result,) if isinstance(result, Tensor) else result:
                self.set_meaning(end, _END)
            return result
        if name == "_local_scalar_dense" and self._meaning.get(id(args[0])) == _END:
            return func(*args)
        rows = self._in_rows(args, kwargs)
        if _is_of_lines(name, args) and rows and self._is_hoisted(args[0]):
            with self:
                return self._lines(args[0], rows[0])
        places_stay = name == "gather" and len(rows) == 1
        if name in _PLACED and rows and not places_stay:
            with self:
                return getattr(self, f"_{name}")(*args, **kwargs)
        return super()._result_of(func, name, args, kwargs)

    @staticmethod
    def _counted(x: Tensor, dim: int) -> Tensor:
        """The indices along a dimension, as numbers that broadcast against ``x``."""
        dim, size = dim % x.dim(), x.shape[dim]
        dtype = x.dtype if x.is_floating_point() else torch.float32
        if size * torch.finfo(dtype).eps > 2:
            raise Untraceable(f"indices among {size} units, which {dtype} cannot count")
        return torch.arange(size, dtype=dtype).view(-1, *[1] * (x.dim() - 1 - dim))

    def _first(self, x: Tensor, dim: int, free: Tensor | None = None) -> Tensor:
        """The index of the first maximum along a dimension, or of the first NaN, as a number.

        Args:
            x: Where to look.
            dim: The dimension.
            free: Mask of the candidates; no other unit is larger than one of these.
        """
        counted, x = self._counted(x, dim), x.detach()
        found = (x == x.amax(dim, keepdim=True)) | (x != x)
        found = found if free is None else found & free
        return -torch.where(found, -counted, -x.shape[dim]).detach().amax(dim, keepdim=True)

    def _place(self, number: Tensor, dim: int, keepdim: bool) -> Tensor:
        """A number per row as an int64 index tensor."""
        place = torch.zeros(number.shape, dtype=torch.int64)
        self.set_meaning(place, self.node(number))
        return place if keepdim else place.squeeze(dim)

    def _argmax(self, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        if dim is None:
            raise over_others("argmax")
        return self._place(self._first(x, dim), dim, keepdim)

    def _argmin(self, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return self._argmax(-x, dim, keepdim)

    def _max(self, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            raise over_others("max")
        first = self._first(x, dim)
        chosen = torch.where(self._counted(x, dim) == first, x, 0.0).sum(dim, keepdim)
        return chosen, self._place(first, dim, keepdim)

    def _min(self, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        chosen, place = self._max(-x, dim, keepdim)
        return -chosen, place

    def _topk(
        self, x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> Any:
        if k > _FOUND:
            raise Untraceable(f"aten.topk of {k} units, more than {_FOUND}")
        self.chooses = True
        counted, rest, values = self._counted(x, dim), x if largest else -x, []
        free: Tensor | None = None
        for _ in range(k):
            chosen = counted == self._first(rest, dim, free)
            values.append(torch.where(chosen, x, 0.0).sum(dim, keepdim=True))
            free = ~chosen if free is None else free & ~chosen
            rest = torch.where(chosen, -math.inf, rest)
        found = torch.cat(values, dim)
        places = torch.zeros(found.shape, dtype=torch.int64)
        self.set_meaning(places, _UNORDERED)
        return found, places

    def _lines(self, matrix: Tensor, index: Tensor) -> Tensor:
        """Rows of a parameter matrix, or elements of a vector, at data-dependent indices."""
        chosen = (self._counted(matrix, 0).view(-1) == index[..., None]).to(matrix.dtype)
        return chosen @ matrix

    def _gather(self, x: Tensor, dim: int, index: Tensor) -> Tensor:
        counted = self._counted(x, dim)
        chosen = (torch.where(counted == place, x, 0.0) for place in _few(x, index, dim))
        return torch.cat([each.sum(dim, keepdim=True) for each in chosen], dim)

    def _scatter(self, x: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
        counted = self._counted(x, dim)
        for i, place in enumerate(_few(x, index, dim)):
            new = value.narrow(dim, i, 1) if isinstance(value, Tensor) else float(value)
            x = torch.where(counted == place, new, x)
        return x


def _is_of_lines(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an operation selects rows of a matrix by index."""
    if name == "index":
        return len(args[1]) == 1 and args[1][0].dtype == torch.int64
    return name == "index_select" and args[1] == 0


def _few(x: Tensor, index: Tensor, dim: int) -> list[Tensor]:
    """The indices of numbers of ``x`` along a dimension, one by one."""
    many = index.shape[dim]
    sizes = [*x.shape]
    sizes[dim] = many
    if [*index.shape] != sizes:
        raise Untraceable(
            f"indices of shape {(*index.shape,)} among numbers of shape {(*x.shape,)}, which leave "
            f"some out; instead: an index for each, {(*sizes,)}"
        )
    if many > _PLACES:
        raise Untraceable(f"{many} data-dependent indices in a row, more than {_PLACES}")
    return [index.narrow(dim, i, 1) for i in range(many)]
