"""Torch's OpenMP threads, for generated code."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch


@cache
def openmp() -> dict[str, int]:
    """Addresses of entry points in the OpenMP library that torch uses; empty if there is none.

    A second library would start threads of its own, which compete with torch's for the cores.
    """
    names = {"parallel": "GOMP_parallel", "thread": "omp_get_thread_num"}
    names |= {"team": "omp_get_num_threads"}
    folder = Path(torch.__file__).parent / "lib"
    beside = [str(path) for pattern in ("libgomp*", "lib*omp*") for path in folder.glob(pattern)]
    for library in (None, *beside):
        try:
            opened = ctypes.CDLL(library)
            found = {k: getattr(opened, name) for k, name in names.items()}
        except (OSError, AttributeError):
            continue
        return {k: ctypes.cast(f, ctypes.c_void_p).value or 0 for k, f in found.items()}
    return {}


def most_threads() -> int:
    """The most threads that a call may use."""
    return torch.get_num_threads() if openmp() else 1
