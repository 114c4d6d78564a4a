"""Two independent computations at once on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_A = TypeVar("_A")
_B = TypeVar("_B")


def run_concurrently(x: Tensor, first: Callable[[], _A], second: Callable[[], _B]) -> tuple[_A, _B]:
    """The results of two independent functions of ``x``.

    On a GPU the second one runs on its own stream, in the backward pass too.
    """
    if not (isinstance(x, Tensor) and x.is_cuda) or torch.compiler.is_compiling():
        return first(), second()
    main, side = torch.cuda.current_stream(x.device), _side_stream(x.device)
    side.wait_stream(main)
    with torch.cuda.stream(side):
        b = second()
    a = first()
    main.wait_stream(side)
    x.record_stream(side)  # the allocator must not reuse memory that the other stream still reads
    for tensor in tree_leaves(b):
        if isinstance(tensor, Tensor):
            tensor.record_stream(main)
    return a, b


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
