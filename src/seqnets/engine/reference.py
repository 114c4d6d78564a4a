"""The plain loop: it defines what every other backend must compute, and is never optimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine import onnx_export
from seqnets.engine.lengths import where_rows, with_filled_padding
from seqnets.engine.modes import is_exporting
from seqnets.engine.request import Request
from seqnets.errors import ConfigError
from seqnets.typing import State

name = "reference"


def refusal(request: Request) -> str | None:
    """None: it runs everything."""
    return None


def run(request: Request) -> tuple[Tensor, State]:
    """Step through time: outputs (B, T, H), and the state after each row's last valid step."""
    cell, x, state = request.cell, request.clean_x, request.state
    B, T, _ = x.shape
    projected = cell.check_projected(cell.project(x), x)
    if onnx_export.runs_here() or _is_exported_without_gradient(x):
        return _scanned(request, projected)
    wx = with_filled_padding(projected, request.lengths).unbind(1)
    masks = request.valid, request.resets
    valid, resets = (None if mask is None else mask.unsqueeze(-1).unbind(1) for mask in masks)
    start = request.start
    outputs: list[Tensor] = []

    for t in reversed(range(T)) if request.reverse else range(T):
        before = state if resets is None else where_rows(resets[t], start, state)
        after = cell.step(wx[t], before) if outputs else _first_step(cell, wx[t], before)
        if valid is None:
            state, y = after, after[0]
        else:
            state = where_rows(valid[t], after, state)
            y = after[0].masked_fill(~valid[t], 0)
        outputs.append(y)

    if not outputs:  # no numbers, but a gradient as any other
        y = x.new_zeros(B, 0, cell.output_size) * projected.sum()
        return y, tuple([part.clone() for part in state])  # as after any number of steps
    return torch.stack(outputs[::-1] if request.reverse else outputs, 1), state


def _is_exported_without_gradient(x: Tensor) -> bool:
    """Whether ``torch.export`` leaves the steps open, and only outputs are asked for."""
    open_steps = isinstance(x.shape[1], torch.SymInt)
    return open_steps and is_exporting() and not torch.is_grad_enabled()


def _scanned(request: Request, projected: Tensor) -> tuple[Tensor, State]:
    """The loop as torch's operator ``scan``, for any number of steps."""
    cell, tensors = request.cell, request.cell.tensors()

    def step(wx: Tensor, state: State, given: Sequence[Tensor]) -> State:
        return cell.bind(dict(zip(tensors, given, strict=True))).step(wx, state)

    given = [*tensors.values()]
    return onnx_export.scanned(step, given, projected, request.state, request.start, request)


def _first_step(cell: Cell, wx: Tensor, before: State) -> State:
    """A step; raise unless it gives a state and leaves alone what it is given."""
    versions = versions_of((wx, *before))
    after = cell.step(wx, before)
    cell.check_after(after, before)
    if versions_of((wx, *before)) != versions:
        raise ConfigError(
            f"{cell._name}: its step changes its input or state in place, expected new tensors.\n"
            f"  Other steps, and the caller, read them too: write h = h * z, not h *= z."
        )
    return after


def versions_of(tensors: Sequence[Tensor]) -> list[int]:
    """How often tensors were changed in place; empty where torch does not count."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return []
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def gradients_of(
    function: Callable[[Sequence[Tensor]], tuple[Tensor, State]],
    tensors: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of a function of tensors, to be differentiated again if gradients are on.

    Args:
        function: Gives outputs and a state.
        tensors: What it is called with.
        grads: The gradients of its outputs, and of the parts of its state.
        needed: For which of the tensors a gradient is wanted.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():  # apart, since some may be made of others
        tensors = [t.view_as(t) if need else t for t, need in zip(tensors, needed, strict=True)]
        y, state = function(tensors)
    outputs = zip((y, *state), grads, strict=True)
    pairs = [(o, g) for o, g in outputs if g is not None and o.requires_grad]
    if not pairs:
        return [None] * len(needed)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            [t for t, need in zip(tensors, needed, strict=True) if need],
            [g for _, g in pairs],
            create_graph=again,
            allow_unused=True,
        )
    )
    return [next(found) if need else None for need in needed]
