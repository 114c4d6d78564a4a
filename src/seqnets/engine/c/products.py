"""A matrix product by the engine's C kernel, ``products.h``."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.engine.c import compiler
from seqnets.engine.c.text import with_headers
from seqnets.engine.c.threads import most_threads, openmp
from seqnets.engine.memory import room

_MEMBERS = (
    *("m", "n", "k", "a", "a_row", "a_column", "b", "b_row", "b_column", "c", "c_row", "bias"),
    *("scratch", "threads", "parallel", "thread", "team"),
)
_Struct = ctypes.c_int64 * len(_MEMBERS)
_WORTH_A_THREAD = 2**18  # multiplications


def can_multiply(dtype: torch.dtype) -> bool:
    """Whether the kernel is available for a dtype."""
    return dtype in (torch.float32, torch.float64) and _library(dtype) is not None


def multiply(a: Tensor, b: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """``out = a @ b + bias``.

    Args:
        a: (m, k), of any strides.
        b: (k, n), of any strides.
        bias: (n), contiguous, or None.
        out: (m, n), with contiguous rows; no alias of the operands.
    """
    library = _library(a.dtype)
    assert library is not None  # callers check ``can_multiply``
    a, b = a.resolve_neg(), b.resolve_neg()  # an imaginary part may be lazily negated
    bias = None if bias is None else bias.resolve_neg()
    (m, k), n = a.shape, b.shape[1]
    threads = min(most_threads(), max(1, m * n * k // _WORTH_A_THREAD))
    scratch = room(out, threads, library.scratch)
    calls = openmp().values() if threads > 1 else (0, 0, 0)
    library.multiply(
        _Struct(
            *(m, n, k, a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride()),
            *(out.data_ptr(), out.stride(0), 0 if bias is None else bias.data_ptr()),
            *(scratch.data_ptr(), threads, *calls),
        )
    )


class _Library(NamedTuple):
    """The kernel for a dtype, and the number of workspace elements per thread."""

    multiply: Any
    scratch: int


@cache
def _library(dtype: torch.dtype) -> _Library | None:
    """The kernel for a dtype; None if it cannot be compiled."""
    text = with_headers("", "vector.h", "products.h", double=dtype == torch.float64)
    try:
        library = compiler.load(text)
    except compiler.NoCompiler:
        return None
    library.multiply.restype = None
    scratch = ctypes.c_int64.in_dll(library, "scratch_of_a_thread").value
    return _Library(library.multiply, scratch)
