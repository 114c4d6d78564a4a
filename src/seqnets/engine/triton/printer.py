"""Prints a pass of a program as Triton kernels, for tiles of rows and units.

A sequential pass is one kernel that runs over all steps, or in mode "step" one kernel for each
stage. In mode "rows" a program keeps whole rows in registers; otherwise programs exchange data
through memory. In mode "time" steps run in parallel.
"""

from __future__ import annotations

from seqnets.engine.program import Program
from seqnets.engine.triton.backward import BackwardPrinter
from seqnets.engine.triton.forward import ForwardPrinter
from seqnets.engine.triton.kernel import Kernel
from seqnets.engine.triton.over_time import BackwardOverTime, ForwardOverTime
from seqnets.engine.triton.passes import PassPrinter
from seqnets.engine.triton.tiles import Tiles

_Printers = dict[str, type[PassPrinter]]
_SEQUENTIAL: _Printers = {"forward": ForwardPrinter, "backward": BackwardPrinter}
_OVER_TIME: _Printers = {"forward": ForwardOverTime, "backward": BackwardOverTime}


def print_pass(program: Program, name: str, tiles: Tiles) -> list[Kernel]:
    """The kernels of the pass "forward" or "backward", in the order in which they are launched.

    In mode "step" there is one for each stage, and in the backward pass a last one for the state
    before the first step. In mode "time" the first of two summarises pieces of time for the other.
    """
    printers = _OVER_TIME if tiles.mode == "time" else _SEQUENTIAL
    return printers[name](program, tiles).kernels()
