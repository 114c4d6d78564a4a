"""Decoding: greedy and beam search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqnets.errors import ConfigError
from seqnets.models.decoder import select_state
from seqnets.models.sequence_to_sequence import SequenceToSequence
from seqnets.typing import END, IGNORE


class Decoded(NamedTuple):
    """The decoded sequences of a batch.

    Attributes:
        tokens: (B, U) int64, with ``END`` last if the sequence has ended, then ``IGNORE``.
        scores: Log-probability of each row divided by its length penalty, (B,).
        attention: Attention weights of each step, (B, U, T), zero past the end; None without
            attention.
    """

    tokens: Tensor
    scores: Tensor
    attention: Tensor | None


@torch.no_grad()
def greedy(
    model: SequenceToSequence,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    max_length: int | Tensor,
    length_penalty: float = 0.0,
) -> Decoded:
    """Decode by taking the likeliest token at each step.

    Args:
        model: The model, in evaluation mode.
        x: Sources: tokens, (B, T) int64, or features, (B, T, I).
        lengths: Valid steps of each row, (B,); all T if omitted.
        max_length: The most tokens to decode, ``END`` included: one limit, or one per row, (B,).
        length_penalty: As for :func:`beam_search`; here it affects scores only.

    Raises:
        ConfigError: An option has an invalid value.
    """
    limits = _limits(len(x), x.device, max_length)
    _check("greedy", 1, limits, length_penalty)
    memory, state = model.read(x, lengths)
    last = torch.full_like(limits, END)
    running = torch.ones_like(limits, dtype=torch.bool)
    total = torch.zeros(len(x), device=x.device)
    tokens, looked = [], []
    while running.any():
        logits, weights, state = model.write(last, memory, state)
        best, last = logits.float().log_softmax(-1).max(-1)
        total = total + best.masked_fill(~running, 0)
        tokens.append(last.masked_fill(~running, IGNORE))
        if weights is not None:
            looked.append(weights.masked_fill(~running[:, None], 0))
        running = running & (last != END) & (limits > len(tokens))
    written = torch.stack(tokens, 1)
    scores = total / _penalty((written != IGNORE).sum(1), length_penalty)
    return Decoded(written, scores, torch.stack(looked, 1) if looked else None)


@torch.no_grad()
def beam_search(
    model: SequenceToSequence,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    max_length: int | Tensor,
    beam_size: int = 5,
    length_penalty: float = 0.0,
) -> Decoded:
    """Decode with beam search.

    Sequences Y, ended or not, are ranked by their log-probability divided by
    ``((5 + |Y|) / 6) ** length_penalty``. The search of a row ends when no unfinished sequence can
    overtake the best ended one.

    Args:
        model: The model, in evaluation mode.
        x: Sources: tokens, (B, T) int64, or features, (B, T, I).
        lengths: Valid steps of each row, (B,); all T if omitted.
        max_length: The most tokens to decode, ``END`` included: one limit, or one per row, (B,).
        beam_size: Sequences kept at each step, K.
        length_penalty: Exponent of the length penalty, at least 0, which favours short sequences.

    Raises:
        ConfigError: An option has an invalid value.

    References:
        Wu et al., 2016, "Google's Neural Machine Translation System", arXiv:1609.08144, 7
        (length normalisation).
    """
    B, K = len(x), beam_size
    limits = _limits(B, x.device, max_length)[:, None]
    _check("beam_search", K, limits, length_penalty)
    memory, state = model.read(x, lengths)
    first_rows = torch.arange(B, device=x.device)[:, None]  # (B, 1)
    rows = first_rows.expand(B, K).flatten()
    memory, state = memory.select(rows), select_state(state, rows)

    last = torch.full((B, K), END, device=x.device)
    total = torch.full((B, K), -torch.inf, device=x.device)
    total[:, 0] = 0  # all K begin alike, so that only one may count
    size = torch.zeros_like(last)
    running = torch.ones_like(last, dtype=torch.bool)
    open_rows = torch.ones(B, dtype=torch.bool, device=x.device)
    steps: list[tuple[Tensor, Tensor]] = []  # parents and tokens of each step, (B, K)
    looked: list[Tensor] = []
    while open_rows.any():
        logits, weights, state = model.write(last.flatten(), memory, state)
        V = logits.shape[-1]
        log_probs = logits.float().log_softmax(-1).view(B, K, V)
        # An ended sequence has one continuation, END, at no cost
        stays = torch.full_like(log_probs, -torch.inf)
        stays[..., END] = 0
        going = total[..., None] + torch.where(running[..., None], log_probs, stays)
        sizes = size + running
        values = (going / _penalty(sizes, length_penalty)[..., None]).view(B, K * V)
        found = values.topk(min(K, K * V), 1).indices  # (B, K), best first
        parents, last = found // V, found % V
        total = going.view(B, K * V).gather(1, found)
        size, was_running = sizes.gather(1, parents), running.gather(1, parents)
        steps.append((parents, last.masked_fill(~was_running, IGNORE)))
        if weights is not None:
            looked.append(weights.view(B, K, -1))
        running = was_running & (last != END) & (size < limits)
        state = select_state(state, (first_rows * K + parents).flatten())

        scores = total / _penalty(size, length_penalty)
        ceiling = total / _penalty(limits, length_penalty)  # if every further token were certain
        best_open = ceiling.masked_fill(~running, -torch.inf).amax(1)
        best_ended = scores.masked_fill(running, -torch.inf).amax(1)
        open_rows = running.any(1) & (best_open > best_ended)
    best = scores.masked_fill(running, -torch.inf).argmax(1)
    tokens, attention = _traced(steps, looked, best)
    return Decoded(tokens, scores.gather(1, best[:, None])[:, 0], attention)


def _traced(
    steps: list[tuple[Tensor, Tensor]], looked: list[Tensor], place: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Trace the sequences at these final places, (B,), back to their beginning."""
    tokens, attention = [], []
    rows = torch.arange(len(place), device=place.device)
    for step in reversed(range(len(steps))):
        parents, written = (part[rows, place] for part in steps[step])
        tokens.append(written)
        place = parents
        if looked:
            weights = looked[step][rows, place]
            attention.append(weights.masked_fill((written == IGNORE)[:, None], 0))
    whole = torch.stack(tokens[::-1], 1)
    used = int((whole != IGNORE).sum(1).max())
    return whole[:, :used], torch.stack(attention[::-1], 1)[:, :used] if looked else None


def _penalty(size: Tensor, alpha: float) -> Tensor:
    return ((5 + size) / 6) ** alpha


def _limits(rows: int, device: torch.device, max_length: int | Tensor) -> Tensor:
    if isinstance(max_length, Tensor):
        return max_length.to(device)
    return torch.full((rows,), max_length, device=device)


def _check(who: str, beam_size: int, limits: Tensor, length_penalty: float) -> None:
    if beam_size < 1 or length_penalty < 0 or int(limits.min()) < 1:
        raise ConfigError(
            f"{who}: beam_size is {beam_size}, length_penalty {length_penalty} and max_length "
            f"{int(limits.min())}, expected at least 1, 0 and 1."
        )
