"""What both backends with printed loops, ``c`` and ``triton``, refuse."""

from __future__ import annotations

import torch

from seqnets.engine import compiling
from seqnets.engine.modes import refusal_of_memory, refusal_of_one_operation
from seqnets.engine.request import Request


def refusal(request: Request) -> str | None:
    """Why no printed loop can run a request, whatever its device, dtype and size; None if one can.

    Under a compiler, why the operator that has the loops inside cannot.
    """
    if 0 in request.x.shape[:2]:
        return "it needs at least one row and one step"
    if reason := refusal_of_one_operation(request.x):
        return reason
    if torch.compiler.is_compiling():
        return compiling.refusal(request)
    tensors = request.own_tensors | request.arguments
    return refusal_of_memory(tensors) or request.untraceable
