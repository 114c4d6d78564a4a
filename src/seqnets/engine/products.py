"""Products of matrices beside the loops: of the inputs, and those that make gradients."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from seqnets.engine.c.products import can_multiply, multiply
from seqnets.engine.measured import nearest, of_processor, table


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """``a @ b + bias``, by torch or by code of ours, whichever was faster on such a processor.

    On x86 torch has its products from a library that does not use all of an AMD processor.

    Args:
        a: (m, k), of any strides.
        b: (k, n), of any strides.
        bias: (n); none if omitted.
        out: What becomes the product, (m, n), contiguous; new if omitted.
    """
    if a.is_cpu and _ours(*a.shape, b.shape[1]) and can_multiply(a.dtype):
        out = a.new_empty(len(a), b.shape[1]) if out is None else out
        multiply(a, b, bias if bias is None else bias.contiguous(), out)
        return out
    return torch.mm(a, b, out=out) if bias is None else torch.addmm(bias, a, b, out=out)


@lru_cache(maxsize=4096)
def _ours(m: int, k: int, n: int) -> bool:
    """Whether our product of (m, k) and (k, n) was faster."""
    measured = table().get(of_processor("products"))
    if measured is None or 0 in (m, k, n):
        return False
    return nearest(measured["speed_of_torch"], (m, k, n)) < 1
