"""Backend ``eager``: interprets a program with torch's operations, for machines without a compiler.

A step is compiled once into a list of instructions. What does not depend on the state (in the
backward pass, on the incoming gradients) is hoisted: computed for a chunk of steps at once.
``instructions.py`` compiles steps, ``loops.py`` runs them over time.
"""

from __future__ import annotations

from torch import Tensor

from seqnets.engine import fused
from seqnets.engine.eager.loops import LOOPS
from seqnets.engine.modes import refusal_of_operations
from seqnets.engine.request import Request
from seqnets.typing import State

name = "eager"


def refusal(request: Request) -> str | None:
    """Why it cannot run the request; None if it can."""
    return refusal_of_operations(request.x) or request.untraceable


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    return fused.run(LOOPS, request)
