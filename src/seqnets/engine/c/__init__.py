"""Backend ``c``: programs printed as C, compiled once by the system's compiler, cached on disk.

``printer.py`` prints a program, ``compiler.py`` builds and loads it, ``loops.py`` calls it.
"""

from __future__ import annotations

import sys
from functools import cache, partial

import torch
from torch import Tensor

from seqnets.cells.block_diagonal import heads_of
from seqnets.cells.given import autocasts
from seqnets.engine import compiling, fused, printed
from seqnets.engine.c.compiler import NOEXEC, NoCompiler
from seqnets.engine.c.compiler import compiler as system_compiler
from seqnets.engine.c.loops import C_LOOPS, TILED_LOOPS, CLoops
from seqnets.engine.c.tiles import has_tiles
from seqnets.engine.request import Request, converted
from seqnets.typing import HALF, State
from seqnets.warn import warn

name = "c"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    x = request.x
    if not x.is_cpu:
        return f"it runs on cpu, not on {x.device}"
    if not x.dtype.is_floating_point:
        return f"it computes in real numbers, not in {x.dtype}"
    if reason := printed.refusal(request):
        return reason
    if torch.compiler.is_compiling():
        return None
    try:
        _loops(x, autocasts(x)).library(request.plan.program, _dtype(x))
    except NoCompiler as reason:
        _say_once(str(reason))
        return str(reason)
    return None


def detail(request: Request) -> str:
    """What the loops leave out, in a few words; empty if nothing."""
    heads = heads_of(request.cell)
    return f"without the zeros between its {heads} heads" if heads > 1 else ""


@cache
def _say_once(reason: str) -> None:
    try:
        command = " ".join(system_compiler())
        advice = f"Another C compiler than {command} may make them fast: set CC."
        if NOEXEC in reason:
            advice = "A folder elsewhere makes them fast: set SEQNETS_CACHE."
    except NoCompiler:
        advice = "A C compiler makes them fast: apt install gcc, xcode-select --install, or set CC."
        if sys.platform == "win32":
            advice = "Linux makes them fast, in WSL for instance."
    warn(
        f"seqnets runs recurrent layers by torch's operations, which is slower: {reason}. {advice}"
    )


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step.

    In half and mixed precision, the loops compute in float32. Outputs have the inputs' dtype; so
    has the state, but in mixed precision, where it is carried on as it is.
    """
    x, is_compiling = request.x, torch.compiler.is_compiling()
    dtype, mixed = _dtype(x), autocasts(x)
    runs = compiling.run if is_compiling else partial(fused.run, _loops(x, mixed))
    if x.dtype is dtype and not mixed:
        return runs(request)
    with torch.autocast("cpu", enabled=False):
        y, state = runs(converted(request, dtype))
    return y.to(x.dtype), state if mixed else tuple([part.to(x.dtype) for part in state])


def _loops(x: Tensor, mixed: bool) -> CLoops:
    """The loops for inputs: in half and mixed precision, tiles may multiply."""
    return TILED_LOOPS if (mixed or x.dtype in HALF) and has_tiles() else C_LOOPS


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype that the loops compute in for inputs of another."""
    return x.dtype if x.dtype is torch.float64 else torch.float32
