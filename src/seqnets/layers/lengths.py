"""Helpers for batches whose rows differ in length."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.engine.lengths import checked_lengths as check_lengths
from seqnets.errors import DtypeError


def checked_lengths(who: str, lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Validated lengths, on the device of x (B, T, ...); errors are those of ``unroll``.

    An x of lower rank is left for the callee to reject.
    """
    if not isinstance(x, Tensor):
        raise DtypeError(f"{who}: input is {type(x).__name__}, expected a tensor.")
    if lengths is None or x.dim() < 3:
        return lengths
    return check_lengths(who, lengths, x.flatten(2))


def valid_steps(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Which steps of a sequence (B, T, ...) are within the lengths (B,): (B, T) boolean."""
    ends = torch.as_tensor(lengths, device=sequence.device)[:, None]
    return torch.arange(sequence.shape[1], device=sequence.device) < ends


def without_padding(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """A sequence (B, T, ...) whose padding is replaced by zeros, even where it is NaN."""
    if lengths is None:
        return sequence
    return sequence.masked_fill(~broadcast_steps(valid_steps(sequence, lengths), sequence), 0)


def masked_softmax(scores: Tensor, valid: Tensor, dim: int = -1) -> Tensor:
    """The softmax over entries where ``valid`` is true; 0 elsewhere, and everywhere if none is."""
    least = torch.finfo(scores.dtype).min  # finite: a row may have no valid entry
    return scores.masked_fill(~valid, least).softmax(dim).masked_fill(~valid, 0)


def resets_for_reverse(resets: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    """Resets for a layer that runs backwards, in the order of the input.

    Where a sequence begins at step t, the backward pass enters the one before at step t - 1.
    """
    if resets is None:
        return None
    if lengths is not None:
        resets = resets & valid_steps(resets, lengths)
    return F.pad(resets, (0, 1))[:, 1:]  # padded first, since there may be no steps


def times_for_reverse(x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> Tensor:
    """Inputs for a layer that runs backwards, of which the last feature is the time elapsed.

    There each step has the time to the one that follows, and the last step of a sequence that of
    its first.

    Args:
        x: Inputs, (B, T, I), each with the time since the step before it.
        lengths: Valid steps of each row, (B,); all T if omitted.
        resets: Resets for the layer, as :func:`resets_for_reverse` gives them.
    """
    steps = torch.arange(x.shape[1], device=x.device)
    after = steps.roll(-1)
    ends = after == 0
    if lengths is not None:
        ends = steps == torch.as_tensor(lengths, device=x.device)[:, None] - 1
    first = torch.zeros_like(steps)
    if resets is not None:
        ends = ends | resets
        begins = F.pad(ends, (1, 0))[:, :-1]
        first = torch.where(begins, steps, 0).cummax(1).values
    places = torch.where(ends, first, after).expand(x.shape[:2])
    return torch.cat([x[..., :-1], x[..., -1:].gather(1, places[..., None])], -1)


Lengths = TypeVar("Lengths", bound="Tensor | None")


def lengths_after(module: nn.Module, lengths: Lengths) -> Lengths:
    """Valid steps of each row of a module's output, (B,), from those of its input.

    They are the same, unless its method ``lengths_after`` says otherwise.
    """
    after: Callable[[Lengths], Lengths] | None = getattr(module, "lengths_after", None)
    return lengths if after is None else after(lengths)


def strided_lengths(lengths: Tensor | None, stride: int) -> Tensor | None:
    """Lengths after every ``stride`` steps have become one, rounded up."""
    return None if lengths is None else (torch.as_tensor(lengths) + stride - 1) // stride


def broadcast_steps(steps: Tensor, sequence: Tensor) -> Tensor:
    """One value per step, (B, T), reshaped to broadcast over a sequence (B, T, ...)."""
    return steps.reshape(*steps.shape, *(1,) * (sequence.dim() - 2))
