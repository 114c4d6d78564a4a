"""In which order a tensor (B, T, columns) lies in memory: rows of a batch first, or time first."""

from __future__ import annotations

from torch import Tensor

from seqnets.engine.memory import room


def comes_first(x: Tensor) -> bool:
    """Whether time is the first dimension in the memory of a tensor (B, T, columns)."""
    B, _, columns = x.shape
    return not x.is_contiguous() and x.stride() == (columns, B * columns, 1)


def rows(tensor: Tensor) -> Tensor:
    """All steps of all rows below each other in the order of memory: (B, T, C) to (B*T, C)."""
    return (tensor.transpose(0, 1) if comes_first(tensor) else tensor).reshape(-1, tensor.shape[-1])


def under_each_other(rows: Tensor, like: Tensor) -> Tensor:
    """What ``rows`` made, back in the shape and layout of a tensor (B, T, …)."""
    B, T, _ = like.shape
    if comes_first(like):
        return rows.reshape(T, B, -1).transpose(0, 1)
    return rows.reshape(B, T, -1)


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The same numbers, laid out as another tensor is."""
    if comes_first(like):
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    return tensor.contiguous()


def row_strides(like: Tensor) -> dict[str, int]:
    """Row b of step t is the (b * row_b + t * row_t)-th below each other."""
    B, T, _ = like.shape
    return {"row_b": 1, "row_t": B} if comes_first(like) else {"row_b": T, "row_t": 1}


def empty(like: Tensor, columns: int) -> Tensor:
    """A tensor (B, T, columns) without numbers, laid out as another one is."""
    B, T, _ = like.shape
    if comes_first(like):
        return like.new_empty(T, B, columns).transpose(0, 1)
    return like.new_empty(B, T, columns)


def inner(like: Tensor, columns: int) -> Tensor:
    """The same for what the caller does not see, in memory that is kept for the next one."""
    B, T, _ = like.shape
    if comes_first(like):
        return room(like, T, B, columns).transpose(0, 1)
    return room(like, B, T, columns)
