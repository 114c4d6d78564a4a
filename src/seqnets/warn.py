"""Warnings that name the user's line, from however deep inside they come."""

from __future__ import annotations

import sys
import warnings

import torch

_INSIDE = ("seqnets", "torch", "lightning", "hydra")
"""Packages whose lines say nothing to whoever is warned."""

_COMMAND = "seqnets.cli.main"
"""Where the command begins, which shows warnings of its own without a line: none is the user's."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as ``warnings.warn`` does, of the call that led here from outside of seqnets."""
    level = 2
    if not torch.compiler.is_compiling():  # a compiler traces no frames
        frame = sys._getframe(1)
        while frame.f_back and _is_inside(frame.f_globals.get("__name__", "")):
            frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module != _COMMAND and module.split(".")[0] in _INSIDE
