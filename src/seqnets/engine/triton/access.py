"""Availability of Triton, and lazy access to its loops: importing Triton takes a second."""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seqnets.engine.linear import recurrences
from seqnets.engine.program import Program
from seqnets.engine.triton import tiles

if TYPE_CHECKING:
    from seqnets.engine.triton.loops import TritonLoops

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why kernels cannot run on a device in a dtype; None if they can."""
    if device.type != "cuda" and not (interpreted() and device.type == "cpu"):
        return f"it runs on cuda, not on {device}"
    if device.type == "cuda" and torch.version.hip is not None:
        return (
            "it runs on NVIDIA's GPUs, not on AMD's"  # a kernel whose programs meet has PTX in it
        )
    if dtype not in DTYPES:
        return f"it computes in float32, bfloat16 and float16, not in {dtype}"
    if device.type == "cpu" and dtype == torch.bfloat16:
        return "Triton's interpreter has no products of bfloat16"
    return missing()


def refusal_of_size(like: Tensor) -> str | None:
    """Why kernels cannot run over a tensor (B, T, …) of this size; None if they can."""
    B, T, _ = like.shape
    if B > _MOST_ROWS or B * T >= 2**31:
        return f"it counts at most {_MOST_ROWS} rows and 2^31 steps of all rows, not {B} x {T}"
    return None


_MOST_ROWS = 8 * tiles.MOST_GROUPS  # a group has at least 8 rows


def missing() -> str | None:
    """Why Triton cannot be used; None if it can."""
    return _missing(interpreted())


def interpreted() -> bool:
    """Whether Triton's interpreter replaces a GPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


for constant in (missing, interpreted):  # for torch.compile, as ``Cell.as_constant`` is
    constant._dynamo_marked_constant = True  # type: ignore[union-attr]


@cache
def _missing(interpreted: bool) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    compilers = filter(None, (os.environ.get("CC"), "gcc", "cc", "clang"))
    if not interpreted and not any(map(shutil.which, compilers)):
        return "Triton needs a C compiler, and none was found"
    return None


@cache
def printed_loops() -> TritonLoops:
    """The sequential loops."""
    from seqnets.engine.triton.loops import TritonLoops

    return TritonLoops()


def over_time_pays(program: Program, like: Tensor) -> bool:
    """Whether loops parallel over time should be faster, for a tensor (B, T, …) on a GPU."""
    B, T, _ = like.shape
    width = program.step.state_sizes[0]
    pays = tiles.over_time_pays(B, T, width, device_of(like))
    return pays and recurrences(program) is not None


@cache
def loops_over_time() -> TritonLoops:
    """The loops parallel over time, for programs that are linear in their state."""
    from seqnets.engine.triton.loops import TritonLoops

    return TritonLoops("time")


@cache
def _device(index: int) -> tiles.Device:
    properties = torch.cuda.get_device_properties(index)
    memory = getattr(properties, "shared_memory_per_block_optin", 99 * 1024)
    return tiles.Device(properties.multi_processor_count, memory)


def device_of(like: Tensor) -> tiles.Device:
    """The resources of a tensor's device; zeros for the interpreter."""
    if not like.is_cuda:
        return tiles.Device(0, 0)
    return _device(like.device.index if like.device.index is not None else 0)
