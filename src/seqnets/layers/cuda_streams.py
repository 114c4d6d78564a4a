"""Two computations on a GPU at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

_A = TypeVar("_A")
_B = TypeVar("_B")


def side_by_side(x: Tensor, first: Callable[[], _A], second: Callable[[], _B]) -> tuple[_A, _B]:
    """What two functions of a tensor return, of which neither needs the other.

    On a GPU the second one runs on a stream of its own, in the backward pass too.
    """
    if not (isinstance(x, Tensor) and x.is_cuda) or torch.compiler.is_compiling():
        return first(), second()
    here, there = torch.cuda.current_stream(x.device), _side_stream(x.device)
    there.wait_stream(here)
    with torch.cuda.stream(there):
        b = second()
    a = first()
    here.wait_stream(there)
    x.record_stream(there)  # memory is not given to others before both are done with it
    for tensor in tree_leaves(b):
        if isinstance(tensor, Tensor):
            tensor.record_stream(here)
    return a, b


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
