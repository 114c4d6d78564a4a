"""In which order the steps of a batch lie in memory: a row's after each other, or time first."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Layout(NamedTuple):
    """A tensor (B, T, C) as a matrix (B*T, C): the matrix is what loops and products work on.

    Attributes:
        B: Rows of the batch.
        T: Steps.
        time_first: Whether a step's rows are neighbours, not a row's steps.
    """

    B: int
    T: int
    time_first: bool = False

    @property
    def row_b(self) -> int:
        """Row b of step t is the (b * row_b + t * row_t)-th of the matrix."""
        return 1 if self.time_first else self.T

    @property
    def row_t(self) -> int:
        """See ``row_b``."""
        return self.B if self.time_first else 1

    def rows(self, tensor: Tensor) -> Tensor:
        """The matrix of a tensor (B, T, C): a view if it lies like this in memory, else a copy."""
        return (tensor.transpose(0, 1) if self.time_first else tensor).flatten(0, 1)

    def whole(self, rows: Tensor) -> Tensor:
        """The tensor (B, T, C) of a matrix, a view."""
        if self.time_first:
            return rows.view(self.T, self.B, -1).transpose(0, 1)
        return rows.view(self.B, self.T, -1)

    def empty(self, like: Tensor, columns: int) -> Tensor:
        """A tensor (B, T, columns) without numbers. It is no view, so that it may be changed."""
        B, T, time_first = self
        if time_first:
            return like.new_empty_strided((B, T, columns), (columns, B * columns, 1))
        return like.new_empty(B, T, columns)

    def by_step(self, rows: Tensor) -> Tensor:
        """The same as (T, B, C), a view."""
        return self.whole(rows).transpose(0, 1)


def layout_of(x: Tensor) -> Layout:
    """How a tensor (B, T, C) lies in memory; of one with gaps, how a copy of it would."""
    B, T, C = x.shape
    return Layout(B, T, not x.is_contiguous() and x.stride() == (C, B * C, 1))
