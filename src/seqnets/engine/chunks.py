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

_STEPS = 32
"""Steps in a chunk: the work within it grows with their number, that between chunks shrinks."""
_STEPS_BY_KEY = 16  # where each key decays by itself: each pair of steps takes a number for each


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
    T, whole = at.q.shape[1], at.log_decay
    size = min(T, _STEPS if whole.shape[-1] == 1 else _STEPS_BY_KEY)
    decay = whole if begin is None else whole.masked_fill(begin.at, -math.inf)
    q, k, v, decay = (_in_chunks(part, size) for part in (at.q, at.k, at.v, decay))
    between, since = _between(decay), decay.cumsum(-2).exp()
    start = None if begin is None or begin.memory is None else begin.memory.unsqueeze(2)
    anew = between[..., 0, :]  # of no meaning without a start
    if begin is not None and start is not None:
        first = _in_chunks(torch.where(begin.at, whole.exp(), 0), size)
        anew = (between * first.unsqueeze(-3)).sum(-2)  # what is left of it
        v = v if at.rate is None else v - (k * anew) @ start

    moves, into = since[..., -1, :, None], (k * between[..., -1, :, :]).mT
    follows = None
    if at.rate is not None:
        rate = _in_chunks(at.rate, size)
        held = rate * _seen(k, k, between).tril(-1)
        v, follows = _solved(held, rate * torch.cat([v, k * since], -1), v.shape[-1])
        moves = torch.diag_embed(moves.squeeze(-1).expand_as(k[..., 0, :])) - into @ follows
    adds = into @ v
    if start is not None:
        adds = adds + anew[..., -1, :, None] * start

    befores = []
    for move, add in zip(moves.unbind(2), adds.unbind(2), strict=True):
        befores.append(memory)
        memory = add + (move * memory if follows is None else move @ memory)
    before = torch.stack(befores, 2)

    found = _seen(q, k, between) @ (v if follows is None else v - follows @ before)
    found = found + (q * since) @ before
    if start is not None:
        found = found + (q * anew) @ start
    return found.flatten(2, 3)[:, :, :T].transpose(1, 2), memory


def _in_chunks(part: Tensor, size: int) -> Tensor:
    """Steps (B, T, N, ·) by chunk, (B, N, chunks, size, ·); zeros follow the last."""
    rest = -part.shape[1] % size
    return F.pad(part.transpose(1, 2), (0, 0, 0, rest)).unflatten(2, (-1, size))


def _between(decay: Tensor) -> Tensor:
    """What the steps after step s leave at step t: (..., t, s, 1 or K); zero where t < s."""
    size = decay.shape[-2]
    steps = torch.arange(size, device=decay.device)
    later = (steps[:, None] > steps)[..., None]
    sums = torch.where(later, decay.unsqueeze(-2), 0).cumsum(-3)
    return sums.exp().masked_fill((steps[:, None] < steps)[..., None], 0)


def _seen(q: Tensor, k: Tensor, between: Tensor) -> Tensor:
    """How much of what step s writes is found at step t, (..., t, s)."""
    if between.shape[-1] == 1:
        return (q @ k.mT) * between.squeeze(-1)
    return ((between * k.unsqueeze(-3)) @ q.unsqueeze(-1)).squeeze(-1)


def _solved(held: Tensor, given: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """What steps write in place of what they find, and how that falls with the memory before them.

    Args:
        held: How much of what earlier steps of the chunk wrote is found, (..., t, s).
        given: The values beside the keys that find the memory before the chunk.
        values: The number of values.
    """
    found = torch.linalg.solve_triangular(held, given, upper=False, unitriangular=True)
    return found[..., :values], found[..., values:]


def stabilised(
    at: Access, m: Tensor, valid: Tensor | None, anew: tuple[Tensor, Tensor] | None
) -> tuple[Access, Tensor]:
    """What steps do to a normalised memory, and the logarithms of its scale, (B, T, N, 1).

    The scale is a maximum of sums, and such maxima are joined for all steps in log2(T) operations.

    Args:
        at: What they do to one without scale, (B, T, N, ·).
        m: Logarithms of the scale before the first step, (B, N, 1).
        valid: Which steps count, (B, T, 1, 1); None if all do.
        anew: Before which steps it is reset, (B, T, 1, 1), and to what, (B, N, 1).
    """
    assert at.log_write is not None  # the memory is normalised
    m, decay, most = m.unsqueeze(1), at.log_decay, at.log_write.clamp(min=0)
    if valid is not None:
        most = most.masked_fill(~valid, -math.inf)
    if anew is not None:
        resets, start = anew[0], anew[1].unsqueeze(1)
        most = torch.where(resets, torch.maximum(most, decay + start), most)
        decay = decay.masked_fill(resets, -math.inf)
    span = 1
    while span < decay.shape[1]:
        ahead = (0, 0, 0, 0, span, 0)
        most = torch.maximum(most, decay + F.pad(most[:, :-span], ahead, value=-math.inf))
        decay = decay + F.pad(decay[:, :-span], ahead)
        span *= 2
    after = torch.maximum(most, decay + m)
    before = torch.cat([m, after[:, :-1]], 1)
    if anew is not None:
        before = torch.where(resets, start, before)
    return scaled(at, before, after), after
