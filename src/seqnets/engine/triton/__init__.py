"""Backend ``triton``: programs printed as Triton kernels, most often one for all steps of a pass.

``tiles.py`` chooses how a pass is divided, ``printer.py`` prints it, ``launch.py`` compiles and
launches it, and ``loops.py`` gives it the tensors.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqnets.cells.given import autocasts
from seqnets.engine import compiling, fused, printed
from seqnets.engine.request import Request, converted
from seqnets.engine.triton import access
from seqnets.typing import State
from seqnets.warn import warn

if TYPE_CHECKING:
    from seqnets.engine.triton.loops import TritonLoops

name = "triton"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    x = request.x
    if reason := access.refusal(x.device, request.dtype):
        if x.is_cuda and access.missing():
            _say_once(reason)
        return reason
    if reason := printed.refusal(request):
        return reason
    return None if torch.compiler.is_compiling() else access.refusal_of_size(x)


def run(request: Request, loops: TritonLoops | None = None) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step.

    Args:
        request: The request.
        loops: The loops to use; the sequential ones if omitted.
    """
    if torch.compiler.is_compiling():
        return compiling.run(request)
    loops = loops or access.printed_loops()
    if not autocasts(request.x):
        return fused.run(loops, request)
    request = converted(request, request.dtype)
    with torch.autocast(request.x.device.type, enabled=False):
        return fused.run(loops, request)


def detail(request: Request, loops: TritonLoops | None = None) -> str:
    """How the work of a request is divided among programs, in words."""
    loops = loops or access.printed_loops()
    like = request.x.new_empty(0, dtype=request.dtype)
    return loops.tiles(request.program, "forward", like, len(request.x)).why


@cache
def _say_once(reason: str) -> None:
    warn(
        f"seqnets runs recurrent layers on the GPU by torch's operations, which is slower: "
        f"{reason}. pip install triton and a C compiler (apt install gcc) make them fast."
    )


def resources() -> list[dict[str, Any]]:
    """Registers, spills and shared memory of every kernel that has run in this process."""
    both = access.printed_loops(), access.loops_over_time()
    return [found for loops in both for found in loops.resources]
