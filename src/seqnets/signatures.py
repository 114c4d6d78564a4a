"""The arguments of functions and classes, whose annotations may name what is not defined."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

if sys.version_info >= (3, 14):  # annotations are evaluated where somebody asks for them
    from annotationlib import Format


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """``inspect.signature``, with a stand-in for a name that only type checkers know.

    Raises:
        ValueError: It has none, as some functions of C.
    """
    if sys.version_info >= (3, 14):
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)
