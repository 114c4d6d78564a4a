"""The order in which "auto" tries backends for a request, by measurement.

Torch's kernels were timed against the loops in C on the CPU, with several threads and with one, and
in Triton on a GPU. Processor families have tables of their own; see ``measured.py``.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from seqnets.cells import GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.cells.block_diagonal import heads_of
from seqnets.engine import native, scan
from seqnets.engine.families import family
from seqnets.engine.measured import for_processor, nearest, table
from seqnets.engine.modes import is_exporting
from seqnets.engine.products import torch_is_slow
from seqnets.engine.request import Request
from seqnets.typing import HALF

_ORDER = {
    "cpu": ("c", "scan", "native", "eager", "reference"),  # triton's interpreter only by name
    "cuda": ("triton", "scan", "native", "eager", "reference"),
}
_NATIVE_FIRST = {
    device: ("native", *(name for name in order if name != "native"))
    for device, order in _ORDER.items()
}

_SCAN_FIRST = ("scan", *(name for name in _ORDER["cuda"] if name != "scan"))


def preference(request: Request) -> tuple[str, ...]:
    """Names of backends, in the order in which "auto" tries them."""
    device = "cuda" if request.x.is_cuda else "cpu"
    if is_exporting():
        return (_ORDER if _leaves_time_open(request) else _NATIVE_FIRST)[device]
    if torch.compiler.is_compiling():
        return _ORDER[device]
    known = family(request.cell)
    if known is None:
        return _SCAN_FIRST if scan.pays(request) else _ORDER[device]
    faster = _faster_on_a_gpu if request.x.is_cuda else _faster_on_a_cpu
    return (_NATIVE_FIRST if faster(known, request) else _ORDER)[device]


def _faster_on_a_cpu(family: type[GatedCell], request: Request) -> bool:
    """Whether torch's kernel for a family is expected to be faster than the loops in C."""
    if request.dtype in HALF:
        return _faster_in_half(request)
    if request.lengths is not None:
        return False  # the loops skip padding, which torch's kernel computes
    if native.one_step_kernel(request.cell, request.x):
        return not _pays_for_one_step(family, request)
    kind = "cpu" if torch.get_num_threads() > 1 else "cpu_alone"
    has_heads = heads_of(request.cell) > 1
    return _was_faster(kind, family, request, _lead_over_heads() if has_heads else 1.0)


def _pays_for_one_step(family: type[GatedCell], request: Request) -> bool:
    """Whether the loops are expected to be faster for a single step, too.

    Entering them, and packing the weights, takes longer than the step of a few rows. It pays where
    torch's products are slow and there are many.
    """
    (B, _, I), H = request.x.shape, request.cell.hidden_size
    if not (isinstance(B, int) and torch_is_slow()):
        return False
    rows, products = _WORTH_A_STEP[torch.is_grad_enabled()]
    return B >= rows and B * len(family.gates) * H * (I + H) >= products


_WORTH_A_STEP = {False: (32, 2**21), True: (64, 2**26)}
"""Rows and multiplications of a single step, without and with gradients, from which it pays."""


def _lead_over_heads() -> float:
    """By what the loops gain at least from heads, whose zeros torch's kernels multiply."""
    return 1.1 if torch.is_grad_enabled() else 1.25


def _faster_in_half(request: Request) -> bool:
    """The same in half precision, which the loops convert to float32."""
    B, T, _ = request.x.shape
    half = request.cell._like.dtype in HALF  # else there are no weights to convert
    few = half and T * _UNITS_A_STEP < request.cell.hidden_size
    one_row = half and B == 1 and torch.is_grad_enabled()
    return few or (native.computes_in_half(request) and not one_row)


_UNITS_A_STEP = 48
"""Units of a half-precision layer for each of its steps from which converting its weights to
float32, for the loops, takes longer than the steps by torch's operations."""


def _faster_on_a_gpu(family: type[GatedCell], request: Request) -> bool:
    """Whether cuDNN is expected to be faster than the loops in Triton."""
    if not _in_one_launch(family, request):
        return False
    return _was_faster(_precision(request.dtype), family, request)


def _was_faster(kind: str, family: type[GatedCell], request: Request, lead: float = 1.0) -> bool:
    """Whether torch's kernel was so many times as fast at the nearest sizes that were measured."""
    B, T, _ = request.x.shape
    if not (isinstance(B, int) and isinstance(T, int)):
        return True  # a tracer leaves them open, and looks inside torch's kernels alone
    sizes = max(B, 1), max(T, 1), request.cell.hidden_size
    return _speed(kind, family.__name__, torch.is_grad_enabled(), sizes) >= lead


def _leaves_time_open(request: Request) -> bool:
    """Whether an export is for any number of steps, which torch's own operators would fix.

    They have the advantage that they run where seqnets is not installed.
    """
    return not isinstance(request.x.shape[1], int) and not torch.onnx.is_in_onnx_export()


def _in_one_launch(family: type[GatedCell], request: Request) -> bool:
    """Whether cuDNN runs all steps of a layer in one launch, rather than a launch per step.

    The conditions are those of PyTorch 2.11 (aten/src/ATen/native/cudnn/RNN.cpp): few units, or in
    float16 LSTMs and plain networks whose sizes are whole numbers of tiles.
    """
    (B, _, I), H, dtype = request.x.shape, request.cell.hidden_size, request.dtype
    if dtype not in (torch.float32, torch.float16):
        return False
    forward, training = _FEW_UNITS[family]
    if H <= (training if torch.is_grad_enabled() else forward):
        return True
    tiles = H % 128 == 0 and I % 128 == 0 and B % 8 == 0
    return dtype == torch.float16 and family is not GRUCell and tiles and H <= 1024 and B <= 128


_FEW_UNITS: dict[type[GatedCell], tuple[int, int]] = {
    LSTMCell: (192, 128),
    GRUCell: (192, 128),
    RNNCell: (384, 256),
}
"""The most units, without and with gradients."""


def _precision(dtype: torch.dtype) -> str:
    """The precision of a GPU's arithmetic in a dtype; float32 may be TF32."""
    rounds = dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return "tf32" if rounds else str(dtype).removeprefix("torch.")


@lru_cache(maxsize=4096)
def _speed(kind: str, family: str, training: bool, sizes: tuple[int, int, int]) -> float:
    """The time of our loops over that of torch's kernel, at the nearest measured sizes."""
    if kind in ("cpu", "cpu_alone"):
        passes = for_processor(kind)["speed_of_native"]
    else:
        passes = table()["cuda"]["speed_of_native"].get(kind, {})
    points = passes.get("training" if training else "forward", {}).get(family, [])
    if sizes[1] > 1:  # a single step has a kernel of its own in torch, which says nothing of others
        points = [point for point in points if point[1] > 1] or points
    return nearest(points, sizes) if points else 0.0
