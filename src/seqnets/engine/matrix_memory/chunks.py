"""Matrix memories over all steps, by products of matrices within chunks of steps.

A chunk's outputs follow from its own steps, by one triangular matrix, and from the memory before
it; only these memories are computed one after the other. Decays enter as logarithms, of which
nothing is subtracted, so that they neither overflow nor cancel; that of minus infinity forgets all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.cells.matrix_memory import Access, scaled
from seqnets.engine.matrix_memory.carry import Chunks

_STEPS = 32
"""Steps in a chunk, a power of 2: work within it grows with them, that between chunks shrinks."""


class Begin(NamedTuple):
    """How rows begin anew.

    Attributes:
        at: Before which steps, (B, T, 1, 1) boolean.
        memory: With what, (B, N, K, W); None if it is zero.
    """

    at: Tensor
    memory: Tensor | None


def in_chunks(at: Access, begin: Begin | None) -> Chunks:
    """What steps do, chunk by chunk.

    Args:
        at: What they do, (B, T, N, ·).
        begin: How rows begin anew; None if none does.
    """
    T, decay = at.q.shape[1], at.log_decay
    size = min(_STEPS, 1 << (T - 1).bit_length())
    if begin is not None:
        decay = decay.masked_fill(begin.at & (decay < math.inf), -math.inf)  # NaN stays
    q, k, v, decay = (by_chunk(part, size) for part in (at.q, at.k, at.v, decay))
    fade = _fade_by_key if decay.shape[-1] > 1 else _fade
    start = None if begin is None else _start(begin, at.log_decay, decay)

    follows: Tensor | None = None
    adds: Tensor | None = None
    shows: Tensor | None = None
    if start is not None:
        adds = start.left[..., -1, :, None] * start.memory
        shows = (q * start.left) @ start.memory
    if at.rate is not None:  # keys find what is there, too
        if start is not None:
            v = v - (k * start.left) @ start.memory
        seen, (q, given), k, moves = fade(decay, torch.stack([q, k]), k[None])
        (seen, held), k = seen.squeeze(1), k.squeeze(0)
        rate = by_chunk(at.rate, size)
        v, follows = _solved(rate * held, rate * torch.cat([v, given], -1), v.shape[-1])
    elif at.erase_q is not None and at.erase_k is not None:  # v is written whatever is there
        queries = torch.stack([q, by_chunk(at.erase_q, size)])
        keys = torch.stack([k, by_chunk(at.erase_k, size)])
        before = None if start is None else (queries[1] * start.left) @ start.memory
        ((seen_v, seen), (held_v, held)), (q, given), (k_v, k), moves = fade(decay, queries, keys)
        adds, shows = _plus(adds, k_v.mT @ v), _plus(shows, seen_v @ v)
        found = _plus(before, held_v.tril(-1) @ v)
        v, follows = _solved(held, torch.cat([-found, given], -1), v.shape[-1])
    else:
        seen, q, k, moves = fade(decay, q[None], k[None])
        seen, q, k = seen.squeeze(0).squeeze(0), q.squeeze(0), k.squeeze(0)
    return Chunks(seen, q, k, v, moves, follows, adds, shows)


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    """The sum of what may be missing and what is there."""
    return b if a is None else a + b


def count_of(T: int) -> int:
    """How many chunks there are of T steps."""
    return (T + _STEPS - 1) // _STEPS


def by_chunk(part: Tensor, size: int, fill: float = 0) -> Tensor:
    """Steps (B, T, N, ·) by chunk, (chunks, B, N, size, ·); others of ``fill`` follow the last."""
    if rest := -part.shape[1] % size:
        part = F.pad(part, (0, 0, 0, 0, 0, rest), value=fill)
    return part.unflatten(1, (-1, size)).permute(1, 0, 3, 2, 4).contiguous()


def by_step(found: Tensor, T: int) -> Tensor:
    """The inverse: (B, T, N, ·)."""
    return found.permute(1, 0, 3, 2, 4).flatten(1, 2)[:, :T]


class _Start(NamedTuple):
    """What rows begin with anew in a chunk.

    Attributes:
        left: What is left of it at each step, (chunks, B, N, steps, 1 or K).
        memory: The memory, (B, N, K, W).
    """

    left: Tensor
    memory: Tensor


def _start(begin: Begin, whole: Tensor, decay: Tensor) -> _Start | None:
    """What rows begin with anew, if it is not zero.

    Args:
        begin: How they do.
        whole: Logarithms of what steps keep, (B, T, N, ·).
        decay: The same by chunk, minus infinity where rows begin anew.
    """
    if begin.memory is None:
        return None
    at = by_chunk(whole.masked_fill(~begin.at, -math.inf), decay.shape[-2], -math.inf)
    return _Start(_most(at, decay)[0].exp(), begin.memory)


def _after(decay: Tensor) -> Tensor:
    """The sum over the steps that follow each one, (..., steps, ·)."""
    return F.pad(decay[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)


def _fade(decay: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What fades within chunks, where all keys of a head fade alike.

    Args:
        decay: Logarithms of what steps keep, (..., C, 1).
        q: Sorts of queries, (n, ..., C, K).
        k: Sorts of keys, (m, ..., C, K).

    Returns:
        How much of what step s writes is found at step t, (n, m, ..., C, C); queries of the memory
        before the chunk, (n, ..., C, K), and keys of the one behind it, (m, ..., C, K); and what is
        left of the former in the latter, (..., 1, 1).
    """
    steps = torch.arange(decay.shape[-2], device=decay.device)
    between = torch.where(steps[:, None] > steps, decay, 0).cumsum(-2).exp()
    since, lasts = decay.cumsum(-2).exp(), _after(decay).exp()
    return (_met(q, k) * between).tril(), q * since, k * lasts, since[..., -1:, :]


def _fade_by_key(decay: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same where each key fades by itself: decays, and what is left, are (..., C or K, K or 1).

    Steps are joined to blocks of 2, 4, 8, …: between two of them, all of what fades does so either
    after s in the former or up to t in the latter. Queries hold what faded since their block began,
    keys what fades until theirs ends, and all factors are at most 1.
    """
    seen, kept, width = (q.unsqueeze(1) * k).sum(-1)[..., None, None], decay.exp(), 1
    q = q * kept
    while width < q.shape[-2]:
        q, k = (part.unflatten(-2, (-1, 2, width)) for part in (q, k))
        across = _met(q[..., 1, :, :], k[..., 0, :, :])
        former, latter = seen.unflatten(-3, (-1, 2)).unbind(-3)
        above = torch.cat([former, torch.zeros_like(across)], -1)
        seen = torch.cat([above, torch.cat([across, latter], -1)], -2)

        former, latter = kept.unflatten(-2, (-1, 2)).unbind(-2)
        one = torch.ones_like(former)
        q = (q * torch.stack([one, former], -2).unsqueeze(-2)).flatten(-4, -2)
        k = (k * torch.stack([latter, one], -2).unsqueeze(-2)).flatten(-4, -2)
        kept = former * latter
        width *= 2
    return seen.squeeze(-3), q, k, kept.mT


def _met(q: Tensor, k: Tensor) -> Tensor:
    """Products of all sorts of queries, (n, ..., t, K), by all of keys, (m, ..., s, K), at once.

    Returns:
        (n, m, ..., t, s).
    """
    if len(q) == len(k) == 1:
        return (q @ k.mT).unsqueeze(0)
    q, k = q.movedim(0, -3), k.movedim(0, -3)
    met = (q.flatten(-3, -2) @ k.flatten(-3, -2).mT).unflatten(-1, k.shape[-3:-1])
    return met.unflatten(-3, q.shape[-3:-1]).movedim((-4, -2), (0, 1))


def _solved(held: Tensor, given: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """What steps write in place of what they find, and how that falls with the memory before them.

    Args:
        held: How much of what earlier steps of the chunk wrote is found, (..., t, s); the diagonal
            and what is above it are not read.
        given: What they write if they find nothing of either, beside the keys that find the memory
            before the chunk.
        values: The number of values.
    """
    found = torch.linalg.solve_triangular(held, given, upper=False, unitriangular=True)
    return found[..., :values], found[..., values:]


def stabilised(
    at: Access,
    log_write: Tensor,
    m: Tensor,
    anew: tuple[Tensor, Tensor] | None,
    counts: Tensor | None,
) -> tuple[Access, Tensor]:
    """What steps do to a normalised memory, and the logarithms of its scale, (B, T, N, 1).

    Args:
        at: What they do to one without scale, (B, T, N, ·); those of padding do nothing.
        log_write: Logarithms of the weights of what they write, (B, T, N, 1).
        m: Logarithms of the scale before the first step, (B, N, 1).
        anew: Before which steps it is reset, (B, T, 1, 1), and to what, (B, N, 1).
        counts: Which steps are not padding, (B, T, 1, 1); None if all are.
    """
    m, decay, most = m.unsqueeze(1), at.log_decay, log_write.clamp(min=0)
    if counts is not None:
        most = torch.where(counts, most, -math.inf)
    if anew is not None:
        resets, start = anew[0], anew[1].unsqueeze(1)
        m = torch.where(resets[:, :1], start, m)
        most = torch.where(resets, torch.maximum(most, decay + start), most)
        decay = decay.masked_fill(resets, -math.inf)
    most, decay = (
        part.transpose(1, 2) for part in _most(most.transpose(1, 2), decay.transpose(1, 2))
    )
    after = torch.maximum(most, decay + m)
    before = torch.cat([m, after[:, :-1]], 1)
    if anew is not None:
        before = torch.where(resets, start, before)
    return scaled(at, log_write, before, after), after


def _most(most: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of what is added at any step so far, with what it lost since, and all losses.

    Maxima of sums join like sums do: in log2(T) operations on all steps, (..., T, ·).
    """
    span = 1
    while span < decay.shape[-2]:
        ahead = (0, 0, span, 0)
        earlier = F.pad(most[..., :-span, :], ahead, value=-math.inf)
        most = torch.maximum(most, decay + earlier)
        decay = decay + F.pad(decay[..., :-span, :], ahead)
        span *= 2
    return most, decay
