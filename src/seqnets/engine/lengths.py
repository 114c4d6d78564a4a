"""Rows that differ in length: the check of lengths, and the order and the last of their steps."""

from __future__ import annotations

import torch
from torch import Tensor

from seqnets.cells.given import how_to_put_batch_first
from seqnets.engine.modes import hides_values, under_transform
from seqnets.errors import DtypeError, ShapeError
from seqnets.typing import State


def checked_lengths(name: str, lengths: Tensor, x: Tensor) -> Tensor:
    """Lengths as int64 on the device of x, (B, T, I); raises as ``unroll`` does."""
    B, T, _ = x.shape
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DtypeError(
                f"{name}: lengths are {lengths!r}, expected integers.\n"
                f"  Lengths count time steps, one for each of the {B} rows of x."
            ) from error
    if lengths.dtype.is_floating_point or lengths.dtype.is_complex or lengths.dtype == torch.bool:
        masks = lengths.dtype == torch.bool or lengths.shape == x.shape[:2]
        remedy = f"a {_MASK}" if masks else "use .long()"
        raise DtypeError(
            f"{name}: lengths are {lengths.dtype}, expected integers.\n"
            f"  Lengths count time steps; {remedy}."
        )
    if tuple(lengths.shape) != (B,):
        is_mask = lengths.shape == x.shape[:2]
        remedy = f"\n  A {_MASK}." if is_mask else how_to_put_batch_first(lengths, x)
        raise ShapeError(
            f"{name}: lengths have shape {tuple(lengths.shape)}, expected (B,) = ({B},).\n"
            f"  B = {B} comes from x, shape {tuple(x.shape)}.{remedy}"
        )
    if lengths.is_cuda and x.is_cpu:
        lengths = lengths.cpu()  # waits for them: a copy on its way would be read too early
    lengths = lengths.long()  # a small type cannot hold T
    if not _values_are_hidden(lengths):
        fits = (lengths >= 0) & (lengths <= T)
        if lengths.is_cuda:  # reading a value would wait for the device; this fails on it instead
            torch._assert_async(fits.all(), f"{name}: a length is outside 0..T = 0..{T}.")
        elif not fits.all():
            row = int(fits.logical_not().nonzero()[0, 0])
            raise ShapeError(
                f"{name}: lengths[{row}] is {int(lengths[row])}, expected 0..T = 0..{T}.\n"
                f"  T = {T} comes from x, shape {tuple(x.shape)}."
            )
    return lengths.to(x.device, non_blocking=True)


_MASK = "mask of valid steps has them as mask.sum(1), where these steps come first in each row"


def _values_are_hidden(tensor: Tensor) -> bool:
    """Whether a tensor's values cannot be read: while compiling or tracing, or under vmap."""
    hidden = torch.compiler.is_compiling() or under_transform() or hides_values()
    return hidden or tensor.is_meta


def where_rows(rows: Tensor, chosen: State, other: State) -> State:
    """A state, each part (B, H): one in the rows, (B, 1), that are true, another in all others."""
    return tuple(torch.where(rows, a, b) for a, b in zip(chosen, other, strict=True))


def with_filled_padding(wx: Tensor, lengths: Tensor | None) -> Tensor:
    """A projected input (B, T, W) whose padding is replaced by real steps of the longest row.

    A step's derivative may be infinite where its input is zero. Multiplied by the zero gradient of
    padding, that would be NaN.
    """
    if lengths is None or not wx.numel():
        return wx
    steps = torch.arange(wx.shape[1], device=wx.device)
    last = (lengths.max() - 1).clamp(min=0)  # repeated where even the longest row is padded
    longest = wx.detach().index_select(0, lengths.argmax()[None])
    longest = longest.index_select(1, steps.clamp(max=last))
    longest = torch.where(longest.isfinite(), longest, 0)  # else one row would spoil others
    return torch.where((steps < lengths[:, None])[..., None], wx, longest)


def at_steps(sequence: Tensor, steps: Tensor) -> Tensor:
    """Gather the steps (B, S) of a sequence (B, T, ...): (B, S, ...).

    ``take_along_dim`` does the same, but specialises an exported program to the batch size.
    """
    index = steps.reshape(*steps.shape, *(1,) * (sequence.dim() - 2))
    return sequence.gather(1, index.expand(-1, -1, *sequence.shape[2:]))


def reverse_time(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row's valid steps in reverse order, (B, T, ...); padding stays at the end."""
    if lengths is None:
        return sequence.flip(1)
    T = sequence.shape[1]
    steps = torch.arange(T, device=sequence.device)
    ends = torch.as_tensor(lengths, device=sequence.device)[:, None]
    order = torch.where(steps < ends, ends - 1 - steps, steps).clamp(0, max(T - 1, 0))
    return at_steps(sequence, order)


def last_step(
    after: Tensor, before: Tensor, lengths: Tensor | None, *, reverse: bool = False
) -> Tensor:
    """What the step that ran last of each row gave, (B, C), not a view.

    Args:
        after: What each step gave, (B, T, C).
        before: What there was before, (B, C); that of rows without steps.
        lengths: Valid steps of each row, (B,); None if all are.
        reverse: Whether time ran backwards.
    """
    if lengths is None:
        return after[:, 0 if reverse else -1].clone()
    ends = (lengths - 1).clamp(min=0)[:, None]
    last = after[:, 0] if reverse else at_steps(after, ends)[:, 0]
    return torch.where((lengths > 0)[:, None], last, before)
