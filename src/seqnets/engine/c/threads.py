"""Torch's own threads, for code that was compiled here."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch


@cache
def openmp() -> dict[str, int]:
    """Addresses in the OpenMP library that torch's own threads come from; nothing without it.

    A second library would bring threads of its own, which fight with torch's for the cores.
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
    """How many threads a call may have."""
    return torch.get_num_threads() if openmp() else 1
