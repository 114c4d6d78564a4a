"""Cells with a matrix memory, all steps at once: a part of backend ``scan``.

It runs under function transforms, compilers and autocast, and can be differentiated to any order.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seqnets.cells import Cell, Wrapper
from seqnets.cells.given import autocasts
from seqnets.cells.matrix_memory import MatrixMemoryCell, divided, parts_written, recall
from seqnets.cells.metaclass import users_classes
from seqnets.engine.lengths import last_step, with_filled_padding
from seqnets.engine.matrix_memory.remember import Found, Task, as_operator, remembered
from seqnets.engine.modes import refusal_of_one_operation, under_transform
from seqnets.engine.recompute import in_modes, modes_of
from seqnets.engine.reference import versions_of
from seqnets.engine.request import Request
from seqnets.errors import BackendError
from seqnets.typing import HALF, State


def memory_of(cell: Cell) -> MatrixMemoryCell | None:
    """The cell whose memory a step reads and writes as its base does; None if there is none.

    Wrappers around it may change the projection and the initial state alone.
    """
    while isinstance(cell, Wrapper) and _steps_as(cell, Wrapper):
        cell = cell.cell
    if isinstance(cell, MatrixMemoryCell) and _steps_as(cell, MatrixMemoryCell):
        return cell
    return None


def _steps_as(cell: Cell, kind: type[Cell]) -> bool:
    """Whether a cell has the step of a class, and its writes."""
    same = (getattr(type(cell), name, None) is getattr(kind, name, None) for name in _STEP)
    return all(same) and not cell.as_constant(_has_own_step)


_STEP = "step", "each_write"


def _has_own_step(cell: Cell) -> bool:
    return not cell.__dict__.keys().isdisjoint(_STEP)


def refusal(request: Request) -> str | None:
    """Why not all steps can run at once; None if they can."""
    if not request.x.dtype.is_floating_point:
        return f"it computes in real numbers, not in {request.x.dtype}"
    if 0 in request.x.shape[:2]:
        return "there is nothing to run: no rows or no steps"
    if torch.onnx.is_in_onnx_export():
        return "ONNX has no such operator"
    if not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None:
        return "torch.jit.trace hides the number of steps, by which it makes chunks"
    return None


def run(request: Request, cell: MatrixMemoryCell) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    lean = request.memory == "lean" and not torch.compiler.is_compiling()  # that decides itself
    if lean and refusal_of_one_operation(request.x) is None:
        return _run_lean(request)
    return _run(request, cell)


def _run_lean(request: Request) -> tuple[Tensor, State]:
    """The same, of which the backward pass computes all but inputs and parameters again."""
    tensors = request.cell.tensors()
    whole = request.cell.bind(tensors)  # the cell itself may have others by then
    cell, modes = memory_of(whole), modes_of(whole)
    assert cell is not None  # whole is a copy of what has one
    optional = (*(request.given or ()), request.lengths, request.resets)
    read = (*(t for t in optional if t is not None), *tensors.values())
    versions: list[int] = []

    def run_from(x: Tensor) -> tuple[Tensor, State]:
        if versions and versions != versions_of((x, *read)):
            raise BackendError(
                f"{cell._name}: its input, state or parameters were changed in place before the "
                f"backward pass.\n"
                f'  memory="lean" computes the forward pass again from them: change them after '
                f"it, or copies of them."
            )
        with in_modes(whole, modes):
            return _run(replace(request, cell=whole, x=x), cell)

    # given x, it restores the random numbers of its device
    found: tuple[Tensor, State] = checkpoint(run_from, request.x, use_reentrant=False)
    versions += versions_of((request.x, *read))
    return found


def _run(request: Request, cell: MatrixMemoryCell) -> tuple[Tensor, State]:
    x = request.clean_x
    wx = request.cell.check_projected(request.cell.project(x), x)
    wx, inside = with_filled_padding(wx, request.lengths), request.valid
    if cell._like.dtype in HALF:
        cell = _widened(cell)
    with torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext():
        y, final = _all_steps(request, cell, wx.float() if wx.dtype in HALF else wx)
    if inside is not None:
        y = y.masked_fill(~inside[..., None], 0)
    final = tuple([part.to(x.dtype) for part in final])
    return y.to(wx.dtype), final


def _widened(cell: MatrixMemoryCell) -> MatrixMemoryCell:
    """The cell with what its steps read in float32; through the conversion, gradients reach it."""
    as_they_are = () if cell.as_constant(_is_users_own) else _PROJECTING
    return cell.bind(
        {
            name: t.float() if t.dtype in HALF and name not in as_they_are else t
            for name, t in cell.tensors().items()
        }
    )


def _is_users_own(cell: Cell) -> bool:
    return bool(users_classes(type(cell)))


_PROJECTING = "weight_ih", "bias_ih", "weight_qk", "bias_qk", "weight_heads", "bias_heads"
"""What projects the inputs, and may be large: no step of a class of seqnets' reads it."""


def _all_steps(request: Request, cell: MatrixMemoryCell, wx: Tensor) -> tuple[Tensor, State]:
    """The same, computed in the dtype of the projected input; outputs of padding are anything."""
    valid, resets = request.valid, request.resets
    if resets is not None and valid is not None:
        resets = resets & valid
    if request.reverse:
        wx, (valid, resets) = wx.flip(1), (t if t is None else t.flip(1) for t in (valid, resets))
    initial = tuple([part.to(wx.dtype) for part in request.state])
    start = tuple([part.to(wx.dtype) for part in request.start])

    m, start_m = (s[3][..., None] if cell.normalised and s else None for s in (initial, start))
    anew = cell.memory(start) if start and not request.cell.starts_at_zero else None
    task = Task(cell.checked_access(wx), cell.memory(initial), m, anew, start_m, valid, resets)
    run = as_operator if torch.compiler.is_compiling() and not under_transform() else remembered
    if cell.writes is not None:
        run = partial(_by_write, run=run, writes=cell.writes)
    found, memory, m = _reading_first(task, run) if cell.reads_first else run(task)
    y = cell.readout(found if m is None else divided(found, m, cell.epsilon), wx)

    y = y.flip(1) if request.reverse else y
    last = last_step(y, initial[0], request.lengths, reverse=request.reverse)
    return y, (last, *cell.carried(memory, None if m is None else m[:, -1]))


def _by_write(task: Task, run: Callable[[Task], Found], writes: int) -> Found:
    """Run a task whose steps write so often: each write as a step, of which the last is read."""

    def once(part: Tensor) -> Tensor:
        """What is done before the first write, and by no other."""
        others = part.new_zeros(*part.shape[:2], writes - 1, *part.shape[2:])
        return torch.cat([part.unsqueeze(2), others], 2).flatten(1, 2)

    q, log_decay = task.at.q.repeat_interleave(writes, 1), once(task.at.log_decay)
    written = {name: part.flatten(1, 2) for name, part in parts_written(task.at).items()}
    at = task.at._replace(q=q, log_decay=log_decay, **written)
    valid = None if task.valid is None else task.valid.repeat_interleave(writes, 1)
    resets = None if task.resets is None else once(task.resets)
    done = run(task._replace(at=at, valid=valid, resets=resets))
    return done._replace(found=done.found[:, writes - 1 :: writes])


def _reading_first(task: Task, run: Callable[[Task], Found]) -> Found:
    """Run a task whose queries find what is there before their steps: after those before them."""
    q, first, resets = task.at.q, task.memory, task.resets
    done = run(task._replace(at=task.at._replace(q=torch.cat([q, q[:, :1]], 1)[:, 1:])))
    if resets is not None:
        start = torch.zeros_like(first) if task.start is None else task.start
        first = torch.where(resets[:, 0, None, None, None], start, first)
    found = torch.cat([recall(first, q[:, 0]).unsqueeze(1), done.found], 1)[:, :-1]
    if resets is not None:
        anew = (q.transpose(1, 2) @ start).transpose(1, 2)
        found = torch.where(resets[..., None, None], anew, found)
    return done._replace(found=found)
