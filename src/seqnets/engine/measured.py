"""Access to ``preference.json``: measured times of our code over torch's, at some sizes.

``scripts/measure_preference.py`` writes it. Processor families have tables of their own, one for
each vector width.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

import torch


@cache
def table() -> Any:
    """The whole file."""
    text = (files("seqnets.engine") / "preference.json").read_text(encoding="utf-8")
    return json.loads(text)


def nearest(points: Sequence[Sequence[float]], sizes: tuple[int, int, int]) -> float:
    """The measurement at the nearest point; distances are between logarithms of sizes."""

    def distance(point: Sequence[float]) -> float:
        return sum(math.log(a / b) ** 2 for a, b in zip(point[:3], sizes, strict=True))

    return float(min(points, key=distance)[3])


def of_processor(kind: str) -> str:
    """The name of a table for this machine's processor family and vector width."""
    return f"{kind} of {_processor()} {_vectors()}"


def for_processor(kind: str) -> Any:
    """A table for this processor: of its family, else of its vector width, else the default."""
    whole = table()
    if (name := of_processor(kind)) in whole:
        return whole[name]
    others = (rows for name, rows in whole.items() if name.partition(" of ")[0] == kind)
    alike = (rows for rows in others if rows["machine"]["vectors"] == _vectors())
    return next(alike, whole[kind])


def _vectors() -> str:
    """Torch's name for the vector instructions that its kernels use here."""
    return torch.backends.cpu.get_cpu_capability()


@cache
def _processor() -> str:
    """Vendor and family from Linux on x86 and ARM; elsewhere the architecture."""
    told: dict[str, str] = {}
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for name, _, value in (line.partition(":") for line in lines):
            told.setdefault(name.strip(), value.strip())
    known = ("vendor_id", "cpu family", "CPU implementer", "CPU part")
    return " ".join(told[name] for name in known if name in told) or platform.machine()
