"""The memory layout of sequences: batch first or time first.

Loops and products work on matrices (B*T, C); a ``Layout`` converts, and gives the loops strides.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """How a tensor (B, T, C) maps to a matrix (B*T, C).

    Attributes:
        B: Rows of the batch.
        T: Steps.
        time_first: Whether the rows of a step are adjacent, rather than the steps of a row.
    """

    B: int
    T: int
    time_first: bool = False

    @property
    def row_b(self) -> int:
        """Stride of rows: row b of step t is row ``b * row_b + t * row_t`` of the matrix."""
        return 1 if self.time_first else self.T

    @property
    def row_t(self) -> int:
        """Stride of steps; see ``row_b``."""
        return self.B if self.time_first else 1

    def rows(self, tensor: Tensor) -> Tensor:
        """The matrix of a tensor (B, T, C): a view if it has this layout, else a copy."""
        return (tensor.transpose(0, 1) if self.time_first else tensor).flatten(0, 1)

    def whole(self, rows: Tensor) -> Tensor:
        """The tensor (B, T, C) of a matrix, as a view."""
        if self.time_first:
            return rows.view(self.T, self.B, -1).transpose(0, 1)
        return rows.view(self.B, self.T, -1)

    def empty(self, like: Tensor, columns: int) -> Tensor:
        """An uninitialised tensor (B, T, columns); not a view, so that it may change in place."""
        B, T, time_first = self
        if time_first:
            return like.new_empty_strided((B, T, columns), (columns, B * columns, 1))
        return like.new_empty(B, T, columns)

    def by_step(self, rows: Tensor) -> Tensor:
        """The tensor (T, B, C) of a matrix, as a view."""
        return self.whole(rows).transpose(0, 1)


def layout_of(x: Tensor) -> Layout:
    """The layout of a tensor (B, T, C), or of a copy of it if it has gaps."""
    B, T, C = x.shape
    return Layout(B, T, not x.is_contiguous() and x.stride() == (C, B * C, 1))
