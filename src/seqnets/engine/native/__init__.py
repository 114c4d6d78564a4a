"""Backend ``native``: torch's own kernels (oneDNN, cuDNN), for the cells that have its equations.

``over_time.py`` runs all steps of a layer, ``single_step.py`` one of them, and ``layers.py`` all
layers of a stack in one call. ``weights.py`` is what they take, and ``second_derivative.py`` what
torch lacks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from seqnets.cells import Cell, LSTMCell
from seqnets.cells.given import autocasts
from seqnets.checks import name_of
from seqnets.engine import onnx_export
from seqnets.engine.families import FAMILIES, family
from seqnets.engine.modes import is_exporting, under_transform
from seqnets.engine.native.layers import layers_at_once
from seqnets.engine.native.over_time import run_layer
from seqnets.engine.native.single_step import keeps_result, one_step_kernel, step, stepped
from seqnets.engine.native.weights import flatten_parameters, weights_of
from seqnets.engine.request import Request
from seqnets.typing import State

__all__ = [
    "computes_in_half",
    "flatten_parameters",
    "layers_at_once",
    "name",
    "one_step_kernel",
    "refusal",
    "run",
    "step",
]

name = "native"


def refusal(request: Request) -> str | None:
    """Why these kernels cannot run the request; None if they can."""
    if family(request.cell) is None:
        known = ", ".join(family.__name__ for family in FAMILIES)
        return f"torch has no kernel for {name_of(request.cell)}, only for {known}"
    if request.memory == "lean":
        return "torch's kernels keep more than states"
    if request.resets is not None:
        return "torch's kernels cannot reset the state inside a sequence"
    if request.x.shape[1] == 0:
        return "torch's kernels need at least one step"
    if onnx_export.runs_here():
        return onnx_export.refusal_of_operator(request)
    if under_transform():
        return "torch's kernels do not run under vmap, forward-mode or functional derivatives"
    if torch.compiler.is_compiling() and not is_exporting():
        return "torch.compile cannot differentiate torch's own recurrent kernels"
    if request.x.is_cpu and autocasts(request.x):
        return request.cell.as_constant(_refusal_of_autocast) or None
    return None


def _refusal_of_autocast(cell: Cell) -> str:
    """Why there is no kernel in autocast's dtype on this processor; empty if there is one.

    Under autocast, torch passes an LSTM to oneDNN without asking whether that supports the dtype.
    """
    dtype = torch.get_autocast_dtype("cpu")
    fails = _is_onednns(cell) and not _has_onednn(dtype)
    return f"oneDNN has no such LSTM in {dtype} here" if fails else ""


def computes_in_half(request: Request) -> bool:
    """Whether a kernel on the CPU computes in float16 or bfloat16 itself, which makes it faster.

    Only oneDNN's does, for LSTMs; the others run operations step by step, which convert.
    """
    return _is_onednns(request.cell) and _has_onednn(request.dtype)


def _is_onednns(cell: Cell) -> bool:
    """Whether torch passes a cell on a CPU to oneDNN."""
    is_lstm = family(cell) is LSTMCell and not cast(LSTMCell, cell).proj_size
    return is_lstm and torch.backends.mkldnn.is_available()


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's LSTM supports a half-precision dtype on this processor; it trains in one."""
    if dtype is torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()) and not torch.is_grad_enabled()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    if onnx_export.runs_here():
        return onnx_export.run_operator(request)
    cell: Any = request.cell
    x, kernel = request.x, request.known_step
    if kernel is None and request.lengths is None:
        kernel = one_step_kernel(cell, x)
    if kernel is None:
        return run_layer(cell, request)
    after = stepped(kernel, weights_of(cell), cell.hidden_size, x.squeeze(1), request.given)
    y = after[0].clone().unsqueeze(1)
    return y, (after[0].clone(),) if keeps_result(cell) else after
