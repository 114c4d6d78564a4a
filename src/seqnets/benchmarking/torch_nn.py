"""torch.nn as a contestant: the same cell, or else its LSTM scaled to the same operations."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.benchmarking.contestants import (
    Absent,
    Contestant,
    Outcome,
    Stepper,
    Workload,
    run_pass,
)
from seqnets.benchmarking.floor import operations
from seqnets.cells import Cell, LSTMCell
from seqnets.conversion import to_torch
from seqnets.errors import ConfigError


def torch_nn(work: Workload) -> Contestant:
    """torch.nn's layer as a contestant, with time first, its faster layout.

    Raises:
        Absent: torch.nn lacks the cell, which has no matrix product to scale the LSTM by.
    """
    layer = torch_layer_of(work.cell)
    if layer is not None:
        return _timed(work, layer, "", 1.0)
    case = work.case
    if not operations(work.cell):
        raise Absent("the cell has no matrix product to be compared by")
    lstm = nn.LSTM(case.I, case.H).to(work.x)
    scale = operations(work.cell) / operations(LSTMCell(case.I, case.H, device="meta"))
    return _timed(work, lstm, "nn.LSTM, scaled by operations", scale)


def torch_layer_of(cell: Cell) -> nn.RNNBase | None:
    """torch.nn's layer with a cell's equation and weights; None if there is none."""
    try:
        return to_torch(cell)
    except ConfigError:
        return None


def _timed(work: Workload, layer: nn.RNNBase, note: str, scale: float) -> Contestant:
    """A layer as a contestant; with a note, it computes another function."""
    exact = not note
    layer.train(work.case.pass_ == "training")  # otherwise cuDNN saves what a backward pass needs
    if work.x.is_cuda:
        layer.flatten_parameters()
        kernels = "by cuDNN" if torch.cudnn_is_acceptable(work.x) else "a step at a time, no cuDNN"
        note = f"{note}, {kernels}".removeprefix(", ")
    if work.case.pass_ == "step":
        stepper = Stepper(partial(_step, layer), work.x.unbind(1))
        outcome: Any = stepper.outcome
        return Contestant("torch.nn", stepper.run, outcome if exact else None, scale, note)
    x, grad = (t.transpose(0, 1) for t in (work.x, work.grad))
    parameters = {name.removesuffix("_l0"): p for name, p in layer.named_parameters()}
    run = partial(run_pass, work.case.pass_, lambda x: layer(x)[0], x, grad, parameters)
    compared = partial(_batch_first, run) if exact else None
    return Contestant("torch.nn", run, compared, scale, note)


def _step(layer: nn.RNNBase, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    y, state = layer(x.unsqueeze(0), state)
    return y[0], state


def _batch_first(run: Any) -> Outcome:
    outcome: Outcome = run()
    return outcome | {k: outcome[k].transpose(0, 1) for k in outcome if k in ("y", "gradient of x")}
