"""Steps printed as Triton, for GPUs: one kernel runs a layer from the first step to the last."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqnets.engine import fused, operator
from seqnets.engine.request import Request, under_transform
from seqnets.engine.trace import Untraceable
from seqnets.typing import State

if TYPE_CHECKING:
    from seqnets.engine.triton.loops import TritonLoops

name = "triton"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refusal(request: Request) -> str | None:
    """Why these kernels cannot run the request; None if they can."""
    x = request.x
    if not x.is_cuda and not (_interpreted() and x.device.type == "cpu"):
        return f"it runs on cuda, not on {x.device}"
    if x.dtype not in _DTYPES:
        return f"it computes in float32, bfloat16 and float16, not in {x.dtype}"
    if 0 in x.shape[:2]:
        return "it needs at least one row and one step"
    if under_transform():
        return "it does not run under vmap, forward-mode or functional derivatives"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if torch.compiler.is_compiling():
        return operator.refusal(request)
    try:
        request.program  # noqa: B018
    except Untraceable as reason:
        return f"the step cannot be traced: {reason}"
    return None


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    if torch.compiler.is_compiling():
        return operator.run(request)
    return fused.run(loops(), request)


@cache
def loops() -> TritonLoops:
    """The loops; Triton is loaded when they are first asked for, since it takes a second."""
    from seqnets.engine.triton.loops import TRITON_LOOPS

    return TRITON_LOOPS


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
