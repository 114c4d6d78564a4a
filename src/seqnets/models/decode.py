"""Decoding: greedy and beam search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqnets.checks import check_n_best
from seqnets.errors import ConfigError
from seqnets.models.decoder import select_state
from seqnets.models.sequence_to_sequence import SequenceToSequence
from seqnets.typing import END, IGNORE


class Decoded(NamedTuple):
    """The decoded sequences of a batch: the best of each row, or its N best, best first.

    Several of a row are a dimension after B: (B, N, U), (B, N) and (B, N, U, T). Where a search
    found fewer, the score is minus infinity, and all tokens are ``IGNORE``.

    Attributes:
        tokens: (B, U) int64, with ``END`` last if the sequence has ended, then ``IGNORE``.
        scores: Log-probability of each row divided by its length penalty, (B,).
        attention: Attention weights of each step, (B, U, T), zero past the end; None without
            attention.
    """

    tokens: Tensor
    scores: Tensor
    attention: Tensor | None

    def best(self) -> Decoded:
        """The best sequence of each row alone."""
        if self.scores.dim() == 1:
            return self
        attention = None if self.attention is None else self.attention[:, 0]
        return Decoded(self.tokens[:, 0], self.scores[:, 0], attention)


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
    n_best: int | None = None,
) -> Decoded:
    """Decode with beam search.

    Sequences Y, ended or not, are ranked by their log-probability divided by
    ``((5 + |Y|) / 6) ** length_penalty``, whose length ``|Y|`` counts ``END``. The search of a row
    ends when no unfinished sequence can overtake the best ended one, or the last of the ``n_best``.

    Args:
        model: The model, in evaluation mode.
        x: Sources: tokens, (B, T) int64, or features, (B, T, I).
        lengths: Valid steps of each row, (B,); all T if omitted.
        max_length: The most tokens to decode, ``END`` included: one limit, or one per row, (B,).
        beam_size: Sequences kept at each step, K.
        length_penalty: Exponent of the length penalty, at least 0. At 0 sequences are ranked by
            their probability, which favours short ones; above 0 longer ones gain.
        n_best: Return this many sequences of each row, N, at most ``beam_size``; if omitted, the
            best one without a dimension for them.

    Raises:
        ConfigError: An option has an invalid value.

    References:
        Wu et al., 2016, "Google's Neural Machine Translation System", arXiv:1609.08144, 7
        (length normalisation).
    """
    B, K = len(x), beam_size
    limits = _limits(B, x.device, max_length)
    _check("beam_search", K, limits, length_penalty)
    if n_best is not None:
        check_n_best("beam_search", n_best, K)
    memory, state = model.read(x, lengths)
    first = torch.arange(B, device=x.device)[:, None]  # (B, 1)
    rows = first.expand(B, K).flatten()
    memory, state = memory.select(rows), select_state(state, rows)

    beams = _Beams(K, limits, length_penalty, n_best or 1)
    looked: list[Tensor] = []
    while beams.may_improve().any():
        logits, weights, state = model.write(beams.last.flatten(), memory, state)
        parents = beams.extend(logits.float().log_softmax(-1).view(B, K, -1))
        state = select_state(state, (first * K + parents).flatten())
        if weights is not None:
            looked.append(weights.view(B, K, -1))
    found = beams.best(looked)
    return found.best() if n_best is None else found


class _Beams:
    """The K best sequences of each row so far, ended or running.

    Args:
        beam_size: Sequences of a row, K.
        limits: The most tokens of a row's sequences, (B,).
        length_penalty: Exponent of the length penalty.
        n_best: How many of them are asked for, N.

    Attributes:
        last: The last token of each sequence, (B, K).
        total: Log-probability of each, (B, K).
        size: Tokens of each, (B, K).
        running: Which have not ended, (B, K).
        steps: For each step, the sequences that were continued and their new tokens, (B, K).
    """

    def __init__(self, beam_size: int, limits: Tensor, length_penalty: float, n_best: int) -> None:
        self.limits, self.length_penalty, self.n_best = limits[:, None], length_penalty, n_best
        self.last = torch.full((len(limits), beam_size), END, device=limits.device)
        self.total = torch.full(self.last.shape, -torch.inf, device=limits.device)
        self.total[:, 0] = 0  # all K begin alike, so that only one may count
        self.size = torch.zeros_like(self.last)
        self.running = torch.ones_like(self.last, dtype=torch.bool)
        self.steps: list[tuple[Tensor, Tensor]] = []

    def extend(self, log_probs: Tensor) -> Tensor:
        """Keep the best K sequences with one more token; return which they continue, (B, K).

        Args:
            log_probs: Log-probability of each token after each sequence, (B, K, V).
        """
        V = log_probs.shape[-1]
        # An ended sequence has one continuation, END, at no cost
        stays = torch.full_like(log_probs, -torch.inf)
        stays[..., END] = 0
        total = self.total[..., None] + torch.where(self.running[..., None], log_probs, stays)
        size = self.size + self.running
        scores = total / self._penalty(size)[..., None]
        best = scores.flatten(1).topk(self.last.shape[1], 1).indices  # (B, K), best first
        parents, self.last = best // V, best % V
        self.total = total.flatten(1).gather(1, best)
        self.size, was_running = size.gather(1, parents), self.running.gather(1, parents)
        self.steps.append((parents, self.last.masked_fill(~was_running, IGNORE)))
        self.running = was_running & (self.last != END) & (self.size < self.limits)
        return parents

    def may_improve(self) -> Tensor:
        """Rows in which a running sequence can still overtake one of the N best ended, (B,)."""
        ceiling = self.total / self._penalty(self.limits)  # if every further token were certain
        best_running = ceiling.masked_fill(~self.running, -torch.inf).amax(1)
        last_ended = self._ended_scores().topk(self.n_best, 1).values[:, -1]
        return self.running.any(1) & (best_running > last_ended)

    def best(self, looked: list[Tensor]) -> Decoded:
        """The N best ended sequences of each row; ``looked`` holds each step's attention."""
        ranked = self._ended_scores().sort(dim=1, descending=True, stable=True)
        scores, places = (part[:, : self.n_best] for part in ranked)
        tokens, attention = _traced(self.steps, looked, places, scores != -torch.inf)
        return Decoded(tokens, scores, attention)

    def _ended_scores(self) -> Tensor:
        scores = self.total / self._penalty(self.size)
        return scores.masked_fill(self.running, -torch.inf)

    def _penalty(self, size: Tensor) -> Tensor:
        return _penalty(size, self.length_penalty)


def _traced(
    steps: list[tuple[Tensor, Tensor]], looked: list[Tensor], places: Tensor, found: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Trace the sequences at these final places, (B, N), back to their beginning.

    Those that are not ``found``, (B, N), are empty.
    """
    tokens, attention = [], []
    rows = torch.arange(len(places), device=places.device)[:, None]
    for step in reversed(range(len(steps))):
        parents, written = (part.gather(1, places) for part in steps[step])
        written = written.masked_fill(~found, IGNORE)
        tokens.append(written)
        places = parents
        if looked:
            weights = looked[step][rows, places]
            attention.append(weights.masked_fill((written == IGNORE)[..., None], 0))
    whole = torch.stack(tokens[::-1], 2)
    used = int((whole != IGNORE).sum(2).max())
    return whole[..., :used], torch.stack(attention[::-1], 2)[:, :, :used] if looked else None


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
