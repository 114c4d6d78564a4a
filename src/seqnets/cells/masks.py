"""The random masks of dropout and zoneout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sequence_mask(x: Tensor, size: int, keep: float, *, steps: bool) -> Tensor:
    """A dropout mask of zeros and 1 / keep, for inputs (..., I): (..., size).

    Args:
        x: The inputs, (B, T, I) or (B, I).
        size: Entries per step.
        keep: Probability of an entry that is not 0.
        steps: Whether every step draws its own mask; else all steps of a row share one.
    """
    shape = [*x.shape[:-1], size]
    if not steps and len(shape) > 2:
        shape[-2] = 1
    return draw(x, shape, keep).div_(keep).expand(*x.shape[:-1], size)


def draw(like: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """Bernoulli samples with probability ``p`` of a 1, in the dtype and on the device of ``like``.

    Out of place, so that ``vmap`` can draw separate samples for each row.
    """
    return torch.bernoulli(torch.empty(shape, dtype=like.dtype, device=like.device), p)
