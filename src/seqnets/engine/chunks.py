"""Matrix memories over all steps, by products of matrices within chunks of steps.

A chunk's outputs follow from its own steps, by one triangular matrix, and from the memory before
it; only these memories are computed one after the other. Decays enter as logarithms, of which
nothing is subtracted, so that they neither overflow nor cancel; that of minus infinity forgets all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.cells.matrix_memory import Access, scaled

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


def run(at: Access, memory: Tensor, begin: Begin | None) -> tuple[Tensor, Tensor]:
    """What each step's query finds, (B, T, N, W), and the memory after the last step.

    Args:
        at: What steps do, (B, T, N, ·).
        memory: The memory before the first step, (B, N, K, W).
        begin: How rows begin anew; None if none does.
    """
    T, decay = at.q.shape[1], at.log_decay
    size = min(_STEPS, 1 << (T - 1).bit_length())
    if begin is not None:
        decay = decay.masked_fill(begin.at, -math.inf)
    q, k, v, decay = (_in_chunks(part, size) for part in (at.q, at.k, at.v, decay))
    since, lasts, seen = decay.cumsum(-2).exp(), _after(decay).exp(), _seen_within(decay)
    start = None if begin is None else _start(begin, at.log_decay, decay)

    moves, into = since[..., -1, :, None], (k * lasts).mT
    follows, drops = None, None
    if begin is not None:  # what is dropped may be no number
        memory, drops = torch.where(begin.at[:, :1], 0, memory), moves == 0
    if at.rate is not None:
        rate = _in_chunks(at.rate, size)
        if start is not None:
            v = v - (k * start.left) @ start.memory
        given = rate * torch.cat([v, k * since], -1)
        v, follows = _solved(rate * seen(k, k), given, v.shape[-1])
        moves = torch.diag_embed(moves.squeeze(-1).expand_as(k[..., 0, :])) - into @ follows
    adds = into @ v
    if start is not None:
        adds = adds + start.left[..., -1, :, None] * start.memory

    befores = []
    for chunk, (move, add) in enumerate(zip(moves.unbind(2), adds.unbind(2), strict=True)):
        befores.append(memory)
        if drops is not None:
            memory = torch.where(drops[:, :, chunk], 0, memory)
        memory = add + (move * memory if follows is None else move @ memory)
    before = torch.stack(befores, 2)

    found = seen(q, k) @ (v if follows is None else v - follows @ before)
    found = found + (q * since) @ before
    if start is not None:
        found = found + (q * start.left) @ start.memory
    return found.flatten(2, 3)[:, :, :T].transpose(1, 2), memory


class _Start(NamedTuple):
    """What rows begin with anew in a chunk.

    Attributes:
        left: What is left of it at each step, (B, N, chunks, steps, 1 or K).
        memory: The memory, (B, N, 1, K, W).
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
    at = _in_chunks(whole.masked_fill(~begin.at, -math.inf), decay.shape[-2], -math.inf)
    return _Start(_most(at, decay)[0].exp(), begin.memory.unsqueeze(2))


def _in_chunks(part: Tensor, size: int, fill: float = 0) -> Tensor:
    """Steps (B, T, N, ·) by chunk, (B, N, chunks, size, ·); others of ``fill`` follow the last."""
    rest = -part.shape[1] % size
    return F.pad(part.transpose(1, 2), (0, 0, 0, rest), value=fill).unflatten(2, (-1, size))


def _after(decay: Tensor) -> Tensor:
    """The sum over the steps that follow each one, (..., steps, ·)."""
    return F.pad(decay[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)


def _seen_within(decay: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """How much of what step s writes is found at step t, (..., t, s), from queries and keys.

    Args:
        decay: Logarithms of what is kept, (..., steps, 1), or (..., steps, K) for each key.
    """
    if decay.shape[-1] > 1:
        return partial(_seen_by_key, decay)
    steps = torch.arange(decay.shape[-2], device=decay.device)
    sums = torch.where(steps[:, None] > steps, decay, 0).cumsum(-2)
    between = sums.exp().tril()
    return lambda q, k: (q @ k.mT) * between


def _seen_by_key(decay: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The same where each key fades by itself.

    Steps are joined to blocks of 2, 4, 8, …: between two of them, all of what fades does so either
    after s in the former or up to t in the latter, and both factors are at most 1.
    """
    seen = (q * k).sum(-1)[..., None, None]
    width = 1
    while width < q.shape[-2]:
        (_, q2), (k1, _), (fades, faded) = (
            part.unflatten(-2, (-1, 2, width)).unbind(-3) for part in (q, k, decay)
        )
        across = (q2 * faded.cumsum(-2).exp()) @ (k1 * _after(fades).exp()).mT
        former, latter = seen.unflatten(-3, (-1, 2)).unbind(-3)
        above = torch.cat([former, torch.zeros_like(across)], -1)
        seen = torch.cat([above, torch.cat([across, latter], -1)], -2)
        width *= 2
    return seen.squeeze(-3)


def _solved(held: Tensor, given: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """What steps write in place of what they find, and how that falls with the memory before them.

    Args:
        held: How much of what earlier steps of the chunk wrote is found, (..., t, s); the diagonal
            and what is above it are not read.
        given: The values beside the keys that find the memory before the chunk.
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
        counts: Which steps are no padding, (B, T, 1, 1); None if all are.
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
