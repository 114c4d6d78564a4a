"""Numeric precision of a case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
}
"""Tensor dtype by name. "tf32" is float32 with matrix products that a GPU may round to TF32."""


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Allow TF32 in cuBLAS and cuDNN if the name is "tf32", and forbid it otherwise.

    By default, torch allows it in cuDNN only.
    """
    libraries: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [library.allow_tf32 for library in libraries]
    try:
        for library in libraries:
            library.allow_tf32 = name == "tf32"
        yield
    finally:
        for library, allowed in zip(libraries, before, strict=True):
            library.allow_tf32 = allowed
