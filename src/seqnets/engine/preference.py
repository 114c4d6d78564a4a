"""Which backends are worth trying for a request, fastest first, by measurement.

``preference.json`` beside this file holds how long torch's kernels take compared with the loops in
C, at some sizes; ``scripts/measure_preference.py`` makes it.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib.resources import files

import torch

from seqnets.engine import native
from seqnets.engine.request import Request

_ORDER = ("c", "scan", "native", "eager", "reference")


def preference(request: Request) -> tuple[str, ...]:
    """Names of all backends, in the order in which "auto" tries them."""
    if torch.compiler.is_exporting():  # torch's own operators run where seqnets is not installed
        return ("native", *(name for name in _ORDER if name != "native"))
    family = native.family(request.cell)
    if torch.compiler.is_compiling() or family is None or request.x.device.type != "cpu":
        return _ORDER
    if speed_of_native(family.__name__, *request.x.shape[:2], request.cell.hidden_size) < 1:
        return _ORDER
    return ("native", *(name for name in _ORDER if name != "native"))


def speed_of_native(family: str, B: int, T: int, H: int) -> float:
    """The time of the loops in C over that of torch's kernel, measured at the nearest sizes."""
    return _speed(family, torch.is_grad_enabled(), B, T, H)


@lru_cache(maxsize=4096)
def _speed(family: str, training: bool, B: int, T: int, H: int) -> float:
    points = _table()["training" if training else "forward"].get(family)
    if not points:
        return 0.0

    def distance(point: list[float]) -> float:
        return sum(math.log(a / b) ** 2 for a, b in zip(point, (B, T, H), strict=False) if b)

    return float(min(points, key=distance)[3])


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, list[list[float]]]]:
    text = (files("seqnets.engine") / "preference.json").read_text(encoding="utf-8")
    return json.loads(text)["speed_of_native"]  # type: ignore[no-any-return]
