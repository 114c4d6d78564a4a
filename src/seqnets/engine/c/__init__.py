"""Backend ``c``: programs printed as C, compiled once by the system's compiler, cached on disk.

``printer.py`` prints a program, ``compiler.py`` builds and loads it, ``loops.py`` calls it.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from seqnets.cells.base import autocasts
from seqnets.engine import fused, operator
from seqnets.engine.c.compiler import NoCompiler
from seqnets.engine.c.compiler import compiler as system_compiler
from seqnets.engine.c.loops import C_LOOPS
from seqnets.engine.modes import refusal_of_one_operation
from seqnets.engine.request import Request
from seqnets.typing import State

name = "c"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    x = request.x
    if not x.is_cpu:
        return f"it runs on cpu, not on {x.device}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 and float64, not in {x.dtype}"
    if autocasts(x):
        return "it does not compute in mixed precision"
    if 0 in x.shape[:2]:
        return "it needs at least one row and one step"
    if reason := refusal_of_one_operation(x):
        return reason
    if torch.compiler.is_compiling():
        return operator.refusal(request)
    if reason := request.untraceable:
        return reason
    try:
        C_LOOPS.library(request.program, x.dtype)
    except NoCompiler as reason:
        _say_once(str(reason))
        return str(reason)
    return None


@cache
def _say_once(reason: str) -> None:
    try:
        command = " ".join(system_compiler())
        advice = f"Another C compiler than {command} may make them fast: set CC."
    except NoCompiler:
        advice = "A C compiler makes them fast: apt install gcc, xcode-select --install, or set CC."
    warnings.warn(
        f"seqnets runs recurrent layers by torch's operations, which is slower: {reason}. {advice}",
        stacklevel=2,
    )


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    if torch.compiler.is_compiling():
        return operator.run(request)
    return fused.run(C_LOOPS, request)
