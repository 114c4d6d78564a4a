"""What was measured: how fast torch's own code is against ours, at some sizes.

``preference.json`` beside this file holds it; ``scripts/measure_preference.py`` makes it. Families
of processors have tables of their own, one for each width of their vectors.
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
    """All of it."""
    text = (files("seqnets.engine") / "preference.json").read_text(encoding="utf-8")
    return json.loads(text)


def nearest(points: Sequence[Sequence[float]], sizes: tuple[int, int, int]) -> float:
    """What was measured at the three sizes nearest to some, by the ratios between them."""

    def distance(point: Sequence[float]) -> float:
        return sum(math.log(a / b) ** 2 for a, b in zip(point[:3], sizes, strict=True))

    return float(min(points, key=distance)[3])


def of_processor(kind: str) -> str:
    """The name of a table of this machine's family of processors, and of their vectors."""
    return f"{kind} of {_processor()} {_vectors()}"


def for_processor(kind: str) -> Any:
    """A table for this machine's processor: its family's, or of one with its vectors, or any."""
    whole = table()
    if (name := of_processor(kind)) in whole:
        return whole[name]
    others = (rows for name, rows in whole.items() if name.partition(" of ")[0] == kind)
    alike = (rows for rows in others if rows["machine"]["vectors"] == _vectors())
    return next(alike, whole[kind])


def _vectors() -> str:
    """What torch calls the vectors that its kernels compute with here."""
    return torch.backends.cpu.get_cpu_capability()


@cache
def _processor() -> str:
    """Vendor and family, as Linux tells them on x86 and on ARM; elsewhere the architecture."""
    told: dict[str, str] = {}
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for name, _, value in (line.partition(":") for line in lines):
            told.setdefault(name.strip(), value.strip())
    known = ("vendor_id", "cpu family", "CPU implementer", "CPU part")
    return " ".join(told[name] for name in known if name in told) or platform.machine()
