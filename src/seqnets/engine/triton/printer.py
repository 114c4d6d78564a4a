"""Prints a program as sequential Triton kernels, for tiles of rows and units.

A pass is one kernel that runs over all steps, or in mode "step" one kernel for each stage. In mode
"rows" a program keeps whole rows in registers; otherwise programs exchange data through memory.
"""

from __future__ import annotations

from seqnets.engine.program import Program
from seqnets.engine.triton.backward import BackwardPrinter
from seqnets.engine.triton.forward import ForwardPrinter
from seqnets.engine.triton.kernel import Kernel
from seqnets.engine.triton.tiles import Tiles


def print_forward(program: Program, tiles: Tiles) -> list[Kernel]:
    """The forward pass: one kernel, or in mode "step" one for each stage."""
    return ForwardPrinter(program, tiles, program.forward).kernels()


def print_backward(program: Program, tiles: Tiles) -> list[Kernel]:
    """The backward pass; in mode "step" the last kernel is for the state before the first step."""
    return BackwardPrinter(program, tiles, program.backward).kernels()
