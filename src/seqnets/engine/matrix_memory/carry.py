"""Matrix memories from one chunk of steps to the next, with a backward pass of its own.

The products within chunks are for all of them at once; one after the other, a chunk costs a product
or two, which write into memory that is there. Few chunks, second derivatives and function
transforms take ``plain``, of torch's operations alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.engine.modes import is_batched
from seqnets.engine.reference import gradients_of
from seqnets.engine.workspaces import room
from seqnets.typing import State


class Chunks(NamedTuple):
    r"""What chunks of C steps find in a memory M of (K, W) before each, and what they leave of it.

    .. math::
        u &= v - \mathrm{follows}\, M \\
        \mathrm{found} &= \mathrm{seen}\, u + q M + \mathrm{shows} \\
        M' &= \mathrm{moves} \odot M + k^\top u + \mathrm{adds}

    Attributes:
        seen: How much of what step s writes is found at step t, (..., C, C), lower triangular.
        q: What is found of M, (..., C, K).
        k: Where steps write, for what is left of it at the end, (..., C, K).
        v: What they write, (..., C, W).
        moves: What is left of M, (..., 1 or K, 1).
        follows: How what they write falls with M, (..., C, K); None if it does not.
        adds: What else is added to the memory, (..., K, W), if anything.
        shows: What else is found, (..., C, W), if anything.
    """

    seen: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    moves: Tensor
    follows: Tensor | None = None
    adds: Tensor | None = None
    shows: Tensor | None = None


def carried(chunks: Chunks, memory: Tensor) -> tuple[Tensor, Tensor]:
    """What all chunks find, (chunks, B, N, C, W), and the memory after the last, (B, N, K, W).

    Args:
        chunks: What they do, (chunks, B, N, ...).
        memory: The memory before the first, (B, N, K, W).
    """
    if torch.is_grad_enabled():
        found, after = _Carry.apply(memory, *chunks)
        return found, after
    memories = memory.new_empty(len(chunks.v) + 1, *memory.shape)
    found, _ = forward(chunks, memory, memories)
    return found, memories[-1].clone()


def plain(chunks: Chunks, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch's operations, out of place."""
    befores = []
    for one in _each(chunks):
        befores.append(memory)
        memory = one.moves * memory + one.k.mT @ written_by(one, memory)
        if one.adds is not None:
            memory = memory + one.adds
    before = torch.stack(befores)
    found = chunks.seen @ written_by(chunks, before) + chunks.q @ before
    return found if chunks.shows is None else found + chunks.shows, memory


def _each(chunks: Chunks) -> list[Chunks]:
    """The chunks, one by one."""
    nothing = [None] * len(chunks.v)
    each = [nothing if part is None else part.unbind() for part in chunks]
    return [*map(Chunks._make, zip(*each, strict=True))]


def written_by(chunks: Chunks, before: Tensor) -> Tensor:
    """What is written, given the memories before."""
    return chunks.v if chunks.follows is None else chunks.v - chunks.follows @ before


class _Carry(torch.autograd.Function):
    """``carried``; differentiated twice, it is computed again by ``plain``."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, *parts: Tensor | None) -> tuple[Tensor, Tensor]:
        chunks = Chunks._make(parts)
        memories = room(memory, len(chunks.v) + 1, *memory.shape)
        found, written = forward(chunks, memory, memories)
        ctx.save_for_backward(memories, written, memory, *parts)
        return found, memories[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        memories, written, *tensors = ctx.saved_tensors
        with torch.autocast(memories.device.type, enabled=False):
            if torch.is_grad_enabled() or any(map(is_batched, grads)):  # create_graph=True, say
                return tuple(_again(tensors, grads, ctx.needs_input_grad))
            moves = ctx.needs_input_grad[1 + Chunks._fields.index("moves")]
            return backward(Chunks._make(tensors[1:]), memories, written, *grads, moves=moves)


def _again(
    tensors: Sequence[Tensor | None], grads: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of ``plain``, which can be differentiated."""
    there = [tensor is not None for tensor in tensors]

    def run(given: Sequence[Tensor]) -> tuple[Tensor, State]:
        memory, *parts = with_gaps(given, there)
        found, after = plain(Chunks._make(parts), memory)
        return found, (after,)

    given = [tensor for tensor in tensors if tensor is not None]
    found = gradients_of(run, given, grads, [*compress(needed, there)])
    return with_gaps(found, there)


def with_gaps(parts: Iterable[Any], there: Iterable[bool]) -> list[Any]:
    """Parts in their places, and None where there are none."""
    rest = iter(parts)
    return [next(rest) if is_there else None for is_there in there]


def forward(chunks: Chunks, memory: Tensor, memories: Tensor) -> tuple[Tensor, Tensor]:
    """What is found, (chunks, B, N, C, W), and what is written, likewise.

    Args:
        chunks: The chunks.
        memory: The memory before the first.
        memories: Is filled with those before each and after the last, (chunks + 1, B, N, K, W).
    """
    v = chunks.v
    written = v if chunks.follows is None else v.new_empty(v.shape)
    memories[0] = memory
    each = zip(_each(_flat(chunks)), written.flatten(1, 2), *_pairs(memories), strict=True)
    for one, u, before, after in each:
        if one.follows is not None:
            torch.baddbmm(one.v, one.follows, before, alpha=-1, out=u)
        torch.mul(before, one.moves, out=after)
        if one.adds is not None:
            after += one.adds
        after.baddbmm_(one.k.mT, u)
    found = chunks.seen @ written
    found.flatten(0, 2).baddbmm_(chunks.q.flatten(0, 2), memories[:-1].flatten(0, 2))
    if chunks.shows is not None:
        found += chunks.shows
    return found, written


def _flat(chunks: Chunks) -> Chunks:
    """Rows and heads in one dimension."""
    return Chunks._make(None if part is None else part.flatten(1, 2) for part in chunks)


def _pairs(memories: Tensor) -> tuple[Tensor, Tensor]:
    """Those before and after each chunk, with rows and heads in one dimension."""
    flat = memories.flatten(1, 2)
    return flat[:-1], flat[1:]


def backward(
    chunks: Chunks,
    memories: Tensor,
    written: Tensor,
    grad_found: Tensor,
    grad_after: Tensor,
    *,
    moves: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of the memory and of all parts of the chunks.

    Args:
        chunks: The chunks.
        memories: Those before each chunk and after the last.
        written: What is written.
        grad_found: The gradient of what is found.
        grad_after: The gradient of the memory after the last.
        moves: Whether that of ``moves`` is wanted.
    """
    befores, grads = memories[:-1], room(memories, *memories.shape)
    grad_v = chunks.seen.mT @ grad_found
    grads[-1] = grad_after
    parts = _each(_flat(chunks)), grad_found.flatten(1, 2), grad_v.flatten(1, 2)
    for one, found, v, before, after in reversed([*zip(*parts, *_pairs(grads), strict=True)]):
        v.baddbmm_(one.k, after)
        torch.mul(after, one.moves, out=before)
        before.baddbmm_(one.q.mT, found)
        if one.follows is not None:
            before.baddbmm_(one.follows.mT, v, alpha=-1)
    afters = grads[1:]
    of_chunks = {
        "seen": grad_found @ written.mT,
        "q": grad_found @ befores.mT,
        "k": written @ afters.mT,
        "v": grad_v,
        "moves": _moved(befores, afters, chunks.moves) if moves else None,
        "follows": None if chunks.follows is None else -grad_v @ befores.mT,
        "adds": None if chunks.adds is None else afters,
        "shows": None if chunks.shows is None else grad_found,
    }
    return grads[0].clone(), *map(of_chunks.get, Chunks._fields)


def _moved(before: Tensor, grad: Tensor, like: Tensor) -> Tensor:
    """The gradient of what is left of memories, from theirs after each chunk."""
    if like.shape[-2] > 1:
        return torch.linalg.vecdot(before, grad)[..., None]
    return torch.linalg.vecdot(before.flatten(-2), grad.flatten(-2))[..., None, None]
