"""In which numbers a case is computed."""

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
"""By name: the type of all tensors. "tf32" is float32 whose products a GPU may round to TF32."""


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Let products round to TF32 if that is the name, and never else, in cuBLAS and cuDNN alike.

    torch's own defaults differ: cuDNN may, cuBLAS may not.
    """
    homes: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [home.allow_tf32 for home in homes]
    try:
        for home in homes:
            home.allow_tf32 = name == "tf32"
        yield
    finally:
        for home, allowed in zip(homes, before, strict=True):
            home.allow_tf32 = allowed
