"""Which backends are worth trying for a request, fastest first, by measurement.

``preference.json`` beside this file holds how fast torch's kernels are compared with the loops in
C, at some sizes; ``scripts/measure_preference.py`` makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch

from seqnets.engine import native
from seqnets.engine.request import Request

_ORDER = ("triton", "c", "scan", "native", "eager", "reference")
_NATIVE_FIRST = ("native", "c", "scan", "eager", "reference")


def preference(request: Request) -> tuple[str, ...]:
    """Names of all backends, in the order in which "auto" tries them."""
    if torch.compiler.is_exporting():  # torch's own operators run where seqnets is not installed
        return _NATIVE_FIRST
    family = native.family(request.cell)
    if torch.compiler.is_compiling() or family is None or request.x.device.type != "cpu":
        return _ORDER
    B, T, _ = request.x.shape
    sizes = max(B, 1), max(T, 1), request.cell.hidden_size
    faster = _speed(family.__name__, torch.is_grad_enabled(), sizes) >= 1
    return _NATIVE_FIRST if faster else _ORDER


@lru_cache(maxsize=4096)
def _speed(family: str, training: bool, sizes: tuple[int, int, int]) -> float:
    """The time of the loops in C over that of torch's kernel."""
    points = _table()["training" if training else "forward"].get(family)
    return nearest(points, sizes) if points else 0.0


def nearest(points: Sequence[Sequence[float]], sizes: tuple[int, int, int]) -> float:
    """What was measured at the sizes B, T and H nearest to some, by the ratios between them."""

    def distance(point: Sequence[float]) -> float:
        return sum(math.log(a / b) ** 2 for a, b in zip(point[:3], sizes, strict=True))

    return float(min(points, key=distance)[3])


@lru_cache(maxsize=1)
def _table() -> Any:
    text = (files("seqnets.engine") / "preference.json").read_text(encoding="utf-8")
    return json.loads(text)["speed_of_native"]
