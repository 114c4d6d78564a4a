"""Whether Triton can be had, and the loops in it, loaded when they are first asked for."""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from seqnets.engine.triton.loops import TritonLoops

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why kernels cannot run on a device, for a dtype; None if they can."""
    if device.type != "cuda" and not (interpreted() and device.type == "cpu"):
        return f"it runs on cuda, not on {device}"
    if dtype not in DTYPES:
        return f"it computes in float32, bfloat16 and float16, not in {dtype}"
    if device.type == "cpu" and dtype == torch.bfloat16:
        return "Triton's interpreter has no products of bfloat16"
    return missing()


def missing() -> str | None:
    """What Triton needs and is not there; None if all is."""
    return _missing(interpreted())


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


for constant in (missing, interpreted):  # for torch.compile, as in engine/operator.py
    constant._dynamo_marked_constant = True  # type: ignore[union-attr]


@cache
def _missing(interpreted: bool) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    compilers = filter(None, (os.environ.get("CC"), "gcc", "cc", "clang"))
    if not interpreted and not any(map(shutil.which, compilers)):
        return "Triton needs a C compiler, and none was found"
    return None


@cache
def printed_loops() -> TritonLoops:
    """The loops. Triton takes a second to load."""
    from seqnets.engine.triton.loops import TritonLoops

    return TritonLoops()
