"""Packed rows of very different lengths, run in pieces with little padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seqnets.cells import Cell
from seqnets.engine.request import state_before
from seqnets.typing import State

_MIN_PADDING = 1024  # steps of padding below which one piece is faster


def is_ragged(sizes: Tensor) -> bool:
    """Whether a padded batch would be mostly padding.

    Args:
        sizes: How many rows have each step, falling, (T,).
    """
    steps = int(sizes.sum())
    return len(sizes) * int(sizes[0]) - steps > max(steps, _MIN_PADDING)


def unroll_packed(
    unroll: Callable[..., tuple[Tensor, State]],
    cell: Cell,
    data: Tensor,
    sizes: Tensor,
    state: State | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Run a cell over packed rows, in pieces of time.

    If a padded batch would be mostly padding, a piece ends as soon as half of its rows have ended,
    so that no piece holds more padding than steps. Otherwise all steps are one piece.

    Args:
        unroll: What runs a piece, as a padded batch.
        cell: The recurrence.
        data: All rows' first steps, then all second steps and so on, (N, I).
        sizes: How many rows have each step, falling, (T,).
        state: State before the first step of each row, each (B, H), longest rows first; the
            cell's initial state if omitted.
        reverse: Whether time runs backwards.

    Returns:
        Outputs in the order of ``data``, (N, H), and the state after each row's last executed step.
    """
    cuts = _cuts(sizes.tolist()) if is_ragged(sizes) else [0, len(sizes)]
    inputs = data.split([int(sizes[first:end].sum()) for first, end in pairwise(cuts)])
    pieces = [(x, sizes[first:end]) for x, (first, end) in zip(inputs, pairwise(cuts), strict=True)]
    rows = [int(sizes[first]) for first in cuts[:-1]]
    start = state_before(cell, data[: rows[0]], None) if state is None else state
    run = partial(_unroll, unroll, cell)
    outputs: list[Tensor] = []
    ended: list[State] = []
    if reverse:
        for piece, (before, count) in zip(pieces[::-1], pairwise([0, *rows[::-1]]), strict=True):
            y, state = run(*piece, _joined([*ended, _rows(start, before, count)]), True)
            outputs.insert(0, y)
            ended = [state]
        return torch.cat(outputs), _joined(ended)
    state = start
    for piece, count, after in zip(pieces, rows, [*rows[1:], 0], strict=True):
        y, state = run(*piece, state, False)
        outputs.append(y)
        ended.insert(0, _rows(state, after, count))
        state = _rows(state, 0, after)
    return torch.cat(outputs), _joined(ended)


def _cuts(sizes: Sequence[int]) -> list[int]:
    """The first step of each piece, and the end of the last."""
    cuts = [0]
    for step, rows in enumerate(sizes):
        if 2 * rows <= sizes[cuts[-1]]:
            cuts.append(step)
    return [*cuts, len(sizes)]


def _unroll(
    unroll: Callable[..., tuple[Tensor, State]],
    cell: Cell,
    data: Tensor,
    sizes: Tensor,
    state: State,
    reverse: bool,
) -> tuple[Tensor, State]:
    """Run a cell over packed rows as one padded batch: outputs (N, H), and the final state."""
    x, lengths = pad_packed_sequence(PackedSequence(data, sizes), batch_first=True)
    no_padding = int(sizes[-1]) == len(x)
    y, state = unroll(cell, x, state, None if no_padding else lengths, reverse=reverse)
    return pack_padded_sequence(y, lengths, batch_first=True).data, state


def _rows(state: State, first: int, end: int) -> State:
    return tuple([part[first:end] for part in state])


def _joined(states: Sequence[State]) -> State:
    """States of disjoint rows, concatenated."""
    if len(states) == 1:
        return states[0]
    return tuple([torch.cat(parts) for parts in zip(*states, strict=True)])
