"""A matrix product by the engine's C kernels, ``products.h`` and ``tiled_products.h``."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.engine.c import compiler
from seqnets.engine.c.text import with_headers
from seqnets.engine.c.threads import most_threads, openmp
from seqnets.engine.c.tiles import has_tiles
from seqnets.engine.workspaces import room

_MEMBERS = (
    *("m", "n", "k", "a", "a_row", "a_column", "b", "b_row", "b_column", "c", "c_row", "bias"),
    *("scratch", "threads", "parallel", "thread", "team", "fails"),
)
_Struct = ctypes.c_int64 * len(_MEMBERS)
_WORTH_A_THREAD = 2**18  # multiplications


def can_multiply(dtype: torch.dtype, tiled: bool = False) -> bool:
    """Whether the kernel is available for a dtype; that by tiles takes float32 alone."""
    dtypes = (torch.float32,) if tiled else (torch.float32, torch.float64)
    return dtype in dtypes and _library(dtype, tiled) is not None


def multiply(a: Tensor, b: Tensor, bias: Tensor | None, out: Tensor, tiled: bool = False) -> bool:
    """``out = a @ b + bias``; returns whether ``out`` is that.

    Args:
        a: (m, k), of any strides.
        b: (k, n), of any strides.
        bias: (n), contiguous, or None.
        out: (m, n), with contiguous rows; no alias of the operands.
        tiled: Whether a processor's tiles of bfloat16 multiply: of each number, 17 of 24 bits are
            used, so that the result is right to 5 digits, relative to ``|a| @ |b|``. It is not
            where a sum is infinite or NaN: tiles may make NaN of infinite factors, and of those
            near the end of float32's range, where float32 does not. Numbers below 1e-33 have fewer
            bits.
    """
    library = _library(a.dtype, tiled)
    assert library is not None  # callers check ``can_multiply``
    a, b = a.resolve_neg(), b.resolve_neg()  # an imaginary part may be lazily negated
    bias = None if bias is None else bias.resolve_neg()
    (m, k), n = a.shape, b.shape[1]
    threads = min(most_threads(), max(1, m * n * k // _WORTH_A_THREAD))
    scratch = room(out, threads, library.scratch)
    calls = openmp().values() if threads > 1 else (0, 0, 0)
    done = library.multiply(
        _Struct(
            *(m, n, k, a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride()),
            *(out.data_ptr(), out.stride(0), 0 if bias is None else bias.data_ptr()),
            *(scratch.data_ptr(), threads, *calls),
        )
    )
    return bool(done)


class _Library(NamedTuple):
    """The kernel for a dtype, and the number of workspace elements per thread."""

    multiply: Any
    scratch: int


@cache
def _library(dtype: torch.dtype, tiled: bool) -> _Library | None:
    """The kernel for a dtype; None if it cannot be compiled, or there are no tiles."""
    if tiled and not has_tiles():
        return None
    blocks = ("tiles.h", "product.h", "tiled_products.h") if tiled else ("product.h", "products.h")
    headers = ("vector.h", *blocks, "product_rows.h")
    try:
        library = compiler.load(with_headers("", *headers, double=dtype == torch.float64))
    except compiler.NoCompiler:
        return None
    scratch = ctypes.c_int64.in_dll(library, "scratch_of_a_thread").value
    return _Library(library.multiply, scratch)
