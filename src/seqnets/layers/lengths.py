"""What layers do with rows of different lengths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.engine import request
from seqnets.errors import DtypeError


def checked_lengths(who: str, lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Lengths as a tensor on the device of x, (B, T, ...); raise as ``unroll`` where they misfit.

    An x of a lower rank is left to who refuses it.
    """
    if not isinstance(x, Tensor):
        raise DtypeError(f"{who}: input is {type(x).__name__}, expected a tensor.")
    if lengths is None or x.dim() < 3:
        return lengths
    return request.checked_lengths(who, lengths, x.flatten(2))


def valid_steps(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Which steps of a sequence (B, T, ...) are within the lengths (B,): (B, T) boolean."""
    ends = torch.as_tensor(lengths, device=sequence.device)[:, None]
    return torch.arange(sequence.shape[1], device=sequence.device) < ends


def without_padding(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """A sequence (B, T, ...) with zeros for padding, whatever was there, be it NaN."""
    if lengths is None:
        return sequence
    return sequence.masked_fill(~as_wide(valid_steps(sequence, lengths), sequence), 0)


def masked_softmax(scores: Tensor, valid: Tensor, dim: int = -1) -> Tensor:
    """The softmax over what is valid, a boolean; 0 elsewhere, and everywhere if nothing is."""
    least = torch.finfo(scores.dtype).min  # finite: there may be nothing else
    return scores.masked_fill(~valid, least).softmax(dim).masked_fill(~valid, 0)


def turned(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Each row's valid steps in the opposite order, (B, T, ...); padding stays where it is."""
    if lengths is None:
        return sequence.flip(1)
    T = sequence.shape[1]
    steps = torch.arange(T, device=sequence.device)
    ends = torch.as_tensor(lengths, device=sequence.device)[:, None]
    order = torch.where(steps < ends, ends - 1 - steps, steps).clamp(0, max(T - 1, 0))
    return request.at_steps(sequence, order)


def resets_from_behind(resets: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    """A sequence that begins at t ends, for who comes from behind, before the step t - 1."""
    if resets is None:
        return None
    if lengths is not None:
        resets = resets & valid_steps(resets, lengths)
    return F.pad(resets[:, 1:], (0, 1))


def divided(lengths: Tensor | None, stride: int) -> Tensor | None:
    """Lengths after so many steps have become one; a part of them counts as a step."""
    return None if lengths is None else (torch.as_tensor(lengths) + stride - 1) // stride


def as_wide(steps: Tensor, sequence: Tensor) -> Tensor:
    """A number for each step, (B, T), with the dimensions of a sequence (B, T, ...)."""
    return steps.reshape(*steps.shape, *(1,) * (sequence.dim() - 2))
