"""Which backends are worth trying for a request, fastest first, by measurement.

``preference.json`` beside this file holds how fast torch's kernels are compared with the loops in
C on the CPU, on several cores and on one alone, and in Triton on a GPU, at some sizes. Families of
processors differ; what was not measured goes by the first that was.
``scripts/measure_preference.py`` makes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import torch

from seqnets.cells import GatedCell, GRUCell, RNNCell
from seqnets.engine import native, scan
from seqnets.engine.request import Request

_ORDER = {
    "cpu": ("c", "scan", "native", "eager", "reference"),  # an interpreter is only taken by name
    "cuda": ("triton", "scan", "native", "eager", "reference"),
}
_NATIVE_FIRST = {
    device: ("native", *(name for name in order if name != "native"))
    for device, order in _ORDER.items()
}

_SCAN_FIRST = ("scan", *(name for name in _ORDER["cuda"] if name != "scan"))


def preference(request: Request) -> tuple[str, ...]:
    """Names of all backends, in the order in which "auto" tries them."""
    device = "cuda" if request.x.is_cuda else "cpu"
    if torch.compiler.is_exporting():  # torch's own operators run where seqnets is not installed
        return _NATIVE_FIRST[device]
    family = native.family(request.cell)
    if torch.compiler.is_compiling():
        return _ORDER[device]
    if family is None:
        return _SCAN_FIRST if scan.pays(request) else _ORDER[device]
    if device == "cpu" and request.lengths is not None:
        return _ORDER[device]  # the loops pass padding by, which torch's kernel for rows computes
    B, T, _ = request.x.shape
    sizes = max(B, 1), max(T, 1), request.cell.hidden_size
    if request.x.is_cuda:
        if not _in_one_launch(family, request):
            return _ORDER[device]
        kind = _numbers(request.x.dtype)
    else:
        kind = "cpu" if torch.get_num_threads() > 1 else "cpu_alone"
    faster = _speed(kind, family.__name__, torch.is_grad_enabled(), sizes) >= 1
    return (_NATIVE_FIRST if faster else _ORDER)[device]


def _in_one_launch(family: type[GatedCell], request: Request) -> bool:
    """Whether cuDNN runs all steps of a layer at once; where it does not, it launches each.

    As PyTorch 2.11 asks it to (aten/src/ATen/native/cudnn/RNN.cpp): for few units, and in float16
    for LSTMs and plain networks of a whole number of tiles.
    """
    (B, _, I), H, dtype = request.x.shape, request.cell.hidden_size, request.x.dtype
    if dtype not in (torch.float32, torch.float16):
        return False
    training = torch.is_grad_enabled()
    if H <= _FEW_UNITS[family is RNNCell][training]:
        return True
    tiles = H % 128 == 0 and I % 128 == 0 and B % 8 == 0
    return dtype == torch.float16 and family is not GRUCell and tiles and H <= 1024 and B <= 128


_FEW_UNITS = {False: {False: 192, True: 128}, True: {False: 384, True: 256}}
"""The most units, for plain networks or others, in training or forward alone."""


def _numbers(dtype: torch.dtype) -> str:
    """How a GPU computes in a dtype: in float32 torch may let its kernels round to TF32."""
    rounds = dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return "tf32" if rounds else str(dtype).removeprefix("torch.")


@lru_cache(maxsize=4096)
def _speed(kind: str, family: str, training: bool, sizes: tuple[int, int, int]) -> float:
    """The time of the loops in C, or in Triton, over that of torch's kernel."""
    whole = _table()
    if kind in ("cpu", "cpu_alone"):
        passes = whole.get(of_processor(kind), whole[kind])["speed_of_native"]
    else:
        passes = whole["cuda"]["speed_of_native"].get(kind, {})
    points = passes.get("training" if training else "forward", {})
    return nearest(points[family], sizes) if family in points else 0.0


def nearest(points: Sequence[Sequence[float]], sizes: tuple[int, int, int]) -> float:
    """What was measured at the sizes B, T and H nearest to some, by the ratios between them."""

    def distance(point: Sequence[float]) -> float:
        return sum(math.log(a / b) ** 2 for a, b in zip(point[:3], sizes, strict=True))

    return float(min(points, key=distance)[3])


def of_processor(kind: str) -> str:
    """The name of a table of this machine's family of processors."""
    return f"{kind} of {_processor()}"


@cache
def _processor() -> str:
    """Vendor and family, as Linux tells them."""
    told: dict[str, str] = {}
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for name, _, value in (line.partition(":") for line in lines):
            told.setdefault(name.strip(), value.strip())
    return f"{told.get('vendor_id', 'any')} {told.get('cpu family', '')}".strip()


@lru_cache(maxsize=1)
def _table() -> Any:
    text = (files("seqnets.engine") / "preference.json").read_text(encoding="utf-8")
    return json.loads(text)
