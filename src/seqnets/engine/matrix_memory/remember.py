"""What matrix memories find over all steps, and the same as a custom operator.

Compilers see the operator, ``seqnets::remember``, where eager code calls ``remembered``. What steps
ask of a memory and write to it is its input, so that it serves every cell, a user's too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells.matrix_memory import Access
from seqnets.engine.matrix_memory import chunks, reach
from seqnets.engine.matrix_memory.carry import (
    Chunks,
    backward,
    carried,
    forward,
    plain,
    with_gaps,
    written_by,
)
from seqnets.engine.modes import refusal_of_one_operation
from seqnets.engine.operator import unaliased
from seqnets.engine.reference import gradients_of


class Task(NamedTuple):
    """What steps do to a memory, what it holds before them, and which of them count.

    Attributes:
        at: What steps do, (B, T, N, ·).
        memory: The memory before the first step, (B, N, K, W).
        m: Logarithms of its scale, (B, N, 1), if it is normalised.
        start: With what rows begin anew, (B, N, K, W); None if with zero, or none does.
        start_m: Logarithms of its scale, (B, N, 1), if it is normalised and rows begin anew.
        valid: Which steps are not padding, (B, T); None if all are.
        resets: Before which steps rows begin anew, none of padding, (B, T); None if none does.
    """

    at: Access
    memory: Tensor
    m: Tensor | None
    start: Tensor | None
    start_m: Tensor | None
    valid: Tensor | None
    resets: Tensor | None


class Found(NamedTuple):
    """What a task gives.

    Attributes:
        found: What each step's query finds, (B, T, N, W); that of padding is anything.
        memory: The memory after the last step, (B, N, K, W).
        m: Logarithms of its scale after each step, (B, T, N, 1), if it is normalised.
    """

    found: Tensor
    memory: Tensor
    m: Tensor | None


_FEW = 2
"""Chunks that torch's operations carry as fast: a backward pass of its own has more to prepare."""

Carry = Callable[[Chunks, Tensor], tuple[Tensor, Tensor]]


def remembered(task: Task) -> Found:
    """Run a task by torch's operations, or by a backward pass of its own where one may be."""
    alone = refusal_of_one_operation(task.at.q) is None
    carry = carried if alone and chunks.count_of(task.at.q.shape[1]) > _FEW else plain
    return _with_reach(task, carry, looks=alone and task.at.q.is_cpu)


def _with_reach(task: Task, carry: Carry, *, looks: bool) -> Found:
    """Run a task so that NaN and infinity reach what they would in the plain loop.

    Products of triangular matrices bring it to earlier steps, as zero times NaN is NaN.

    Args:
        task: The task.
        carry: How memories go from chunk to chunk.
        looks: Whether to see first, by the result, if there is any; this waits for a GPU.
    """
    task = _with_idle_padding(task)
    if looks and math.isfinite((done := _run(task, carry)).found.detach().sum()):
        return done
    clean, spoilt = reach.parted(task)
    done = _run(clean, carry)
    return Found(
        reach.spoil(done.found, spoilt.columns),
        reach.spoil(done.memory, spoilt.columns[:, -1, :, None]),
        None if done.m is None else reach.spoil(done.m, spoilt.scale),
    )


def _with_idle_padding(task: Task) -> Task:
    """A task whose steps of padding do nothing to the memory."""
    at, valid = task.at, task.valid
    if valid is None:
        return task
    counts = valid[..., None, None]
    k, decay, write = torch.where(counts, at.k, 0), torch.where(counts, at.log_decay, 0), None
    erase = None if at.erase_k is None else torch.where(counts, at.erase_k, 0)
    if at.log_write is not None:
        write = torch.where(counts, at.log_write, -math.inf)
    return task._replace(at=at._replace(k=k, log_decay=decay, log_write=write, erase_k=erase))


def _run(task: Task, carry: Carry) -> Found:
    parts, m = _in_chunks(task)
    found, memory = carry(parts, task.memory)
    return Found(chunks.by_step(found, task.at.q.shape[1]), memory, m)


def _in_chunks(task: Task) -> tuple[Chunks, Tensor | None]:
    """What chunks of steps do, and logarithms of the scale after each step."""
    at, m = task.at, None
    begins = None if task.resets is None else task.resets[..., None, None]
    if at.log_write is not None and task.m is not None:
        counts = None if task.valid is None else task.valid[..., None, None]
        anew = None
        if begins is not None and task.start_m is not None:
            anew = begins, task.start_m
        at, m = chunks.stabilised(at, at.log_write, task.m, anew, counts)
    begin = None if begins is None else chunks.Begin(begins, task.start)
    return chunks.in_chunks(at, begin), m


def as_operator(task: Task) -> Found:
    """Run a task by ``seqnets::remember``."""
    parts = _parts(task)
    save = torch.is_grad_enabled() and any(part.requires_grad for part in parts.values())
    names = ",".join(parts)
    found = torch.ops.seqnets.remember([*parts.values()], names, task.valid, task.resets, save)
    return Found(found[0], found[1], found[2] if "m" in parts else None)


def _parts(task: Task) -> dict[str, Tensor]:
    """The tensors of a task that have gradients, by name; it is rebuilt by ``_task``."""
    named = {**task.at._asdict(), **task._asdict()}
    return {name: named[name] for name in _PARTS if named[name] is not None}


_OF_STEPS = Access._fields
_PARTS = (*_OF_STEPS, "memory", "m", "start", "start_m")


def _task(parts: Sequence[Tensor], names: str, valid: Tensor | None, resets: Tensor | None) -> Task:
    named: dict[str, Any] = dict.fromkeys(_PARTS)
    named.update(zip(names.split(","), parts, strict=True))
    at = Access._make(named[name] for name in _OF_STEPS)
    memory, m, start, start_m = (named[name] for name in _PARTS[len(_OF_STEPS) :])
    return Task(at, memory, m, start, start_m, valid, resets)


@torch.library.custom_op("seqnets::remember", mutates_args=())
def remember(
    parts: list[Tensor], names: str, valid: Tensor | None, resets: Tensor | None, save: bool
) -> list[Tensor]:
    """Run a task, whose tensors come with their names.

    Returns:
        What is found, the memory after the last step, logarithms of the scale if there is one, and
        with ``save`` the memories before each chunk and after the last.
    """
    kept: list[Tensor] = []

    def keeping(parts: Chunks, memory: Tensor) -> tuple[Tensor, Tensor]:
        memories = memory.new_empty(len(parts.v) + 1, *memory.shape)
        found, _ = forward(parts, memory, memories)
        kept[:] = [memories]
        return found, memories[-1].clone()

    task = _task(parts, names, valid, resets)
    with torch.autocast(parts[0].device.type, enabled=False):
        found = _with_reach(task, keeping, looks=parts[0].is_cpu)
    results = [part.contiguous() for part in found if part is not None]
    return [*results, *(kept if save else [])]


@remember.register_fake
def _(parts, names, valid, resets, save):
    task = _task(parts, names, valid, resets)
    B, T, N, _ = task.at.q.shape
    like, (*_, K, W) = task.memory, task.memory.shape
    results = [like.new_empty(B, T, N, W), like.new_empty(B, N, K, W)]
    if task.m is not None:
        results.append(like.new_empty(B, T, N, 1))
    return [*results, *([like.new_empty(chunks.count_of(T) + 1, B, N, K, W)] if save else [])]


@torch.library.custom_op("seqnets::remember_backward", mutates_args=())
def remember_backward(
    grads: list[Tensor],
    memories: Tensor,
    parts: list[Tensor],
    names: str,
    valid: Tensor | None,
    resets: Tensor | None,
) -> list[Tensor]:
    """Gradients of all parts of a task."""
    there: list[bool] = []

    def prepare(*parts):
        made, m = _in_chunks(_with_idle_padding(_task(parts, names, valid, resets)))
        there[:] = [part is not None for part in made]
        return (*compress(made, there), *([] if m is None else [m]))

    with torch.autocast(memories.device.type, enabled=False):
        made, pull = torch.func.vjp(prepare, *parts)
        steps = Chunks._make(with_gaps(made[: sum(there)], there))
        found = chunks.by_chunk(grads[0], steps.v.shape[-2])
        of_memory, *of_chunks = backward(
            steps, memories, written_by(steps, memories[:-1]), found, grads[1], moves=True
        )
        results = pull((*compress(of_chunks, there), *grads[2:]))
    named = dict(zip(names.split(","), results, strict=True)) | {"memory": of_memory}
    return [*unaliased(named.values())]


@remember_backward.register_fake
def _(grads, memories, parts, names, valid, resets):
    return [torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts]


def _save(ctx, inputs, output) -> None:
    parts, names, valid, resets, _ = inputs
    count = 3 if "m" in names.split(",") else 2
    ctx.names, ctx.count, ctx.shapes = names, len(parts), [part.shape for part in output[:count]]
    ctx.save_for_backward(valid, resets, *parts, *output[count:])


def _differentiate(ctx, grads):
    valid, resets, *saved = ctx.saved_tensors
    parts, kept = saved[: ctx.count], saved[ctx.count :]
    grads = [
        parts[0].new_zeros(shape) if grad is None else grad.contiguous()
        for grad, shape in zip(grads, ctx.shapes, strict=False)
    ]
    if torch.is_grad_enabled() or not kept:  # create_graph=True, or traced under no_grad

        def run(parts):
            first, *others = _with_reach(_task(parts, ctx.names, valid, resets), plain, looks=False)
            return first, [part for part in others if part is not None]

        with torch.autocast(parts[0].device.type, enabled=False):
            found = gradients_of(run, parts, grads, [part.requires_grad for part in parts])
    else:
        found = torch.ops.seqnets.remember_backward(grads, *kept, parts, ctx.names, valid, resets)
    return found, None, None, None, None


remember.register_autograd(_differentiate, setup_context=_save)
