"""Rows of very different lengths, packed as torch.nn packs them, in pieces with little padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seqnets.cells import Cell
from seqnets.engine.request import state_before
from seqnets.engine.unroll import unroll
from seqnets.typing import State

_MUCH = 1024  # steps of padding from which on pieces pay, if there is more of it than of the rest


def is_ragged(sizes: Tensor) -> bool:
    """Whether rows side by side would be padding for the most part.

    Args:
        sizes: How many rows have each step, falling, (T,).
    """
    steps = int(sizes.sum())
    return len(sizes) * int(sizes[0]) - steps > max(steps, _MUCH)


def unroll_packed(
    cell: Cell, data: Tensor, sizes: Tensor, state: State | None, reverse: bool
) -> tuple[Tensor, State]:
    """Run a cell over packed rows, a piece of the steps after the other.

    Where most would be padding, a piece ends where half of its rows have: in none there is more
    padding than steps then. Else all steps are one piece.

    Args:
        cell: The recurrence.
        data: The inputs of all rows' first steps, of all second steps and so on, (N, I).
        sizes: How many rows have each step, falling, (T,).
        state: State before the first step of each row, each (B, H), longest rows first; the
            cell's initial state if omitted.
        reverse: Whether time runs backwards.

    Returns:
        Outputs as ``data`` is, (N, H), and the state after the step that ran last in each row.
    """
    cuts = _cuts(sizes.tolist()) if is_ragged(sizes) else [0, len(sizes)]
    inputs = data.split([int(sizes[first:end].sum()) for first, end in pairwise(cuts)])
    pieces = [(x, sizes[first:end]) for x, (first, end) in zip(inputs, pairwise(cuts), strict=True)]
    rows = [int(sizes[first]) for first in cuts[:-1]]
    start = state_before(cell, data[: rows[0]], None) if state is None else state
    outputs: list[Tensor] = []
    ended: list[State] = []
    if reverse:
        for piece, (before, count) in zip(pieces[::-1], pairwise([0, *rows[::-1]]), strict=True):
            y, state = _unroll(cell, *piece, _joined([*ended, _rows(start, before, count)]), True)
            outputs.insert(0, y)
            ended = [state]
        return torch.cat(outputs), _joined(ended)
    state = start
    for piece, count, after in zip(pieces, rows, [*rows[1:], 0], strict=True):
        y, state = _unroll(cell, *piece, state, False)
        outputs.append(y)
        ended.insert(0, _rows(state, after, count))
        state = _rows(state, 0, after)
    return torch.cat(outputs), _joined(ended)


def _cuts(sizes: Sequence[int]) -> list[int]:
    """Where pieces begin, and the end of the last."""
    cuts = [0]
    for step, rows in enumerate(sizes):
        if 2 * rows <= sizes[cuts[-1]]:
            cuts.append(step)
    return [*cuts, len(sizes)]


def _unroll(
    cell: Cell, data: Tensor, sizes: Tensor, state: State, reverse: bool
) -> tuple[Tensor, State]:
    """Run a cell over packed rows side by side: outputs (N, H), and the state after the last."""
    x, lengths = pad_packed_sequence(PackedSequence(data, sizes), batch_first=True)
    whole = int(sizes[-1]) == len(x)  # nothing is padding
    y, state = unroll(cell, x, state, None if whole else lengths, reverse=reverse)
    return pack_padded_sequence(y, lengths, batch_first=True).data, state


def _rows(state: State, first: int, end: int) -> State:
    return tuple([part[first:end] for part in state])


def _joined(states: Sequence[State]) -> State:
    """States of other rows, one after the other."""
    if len(states) == 1:
        return states[0]
    return tuple([torch.cat(parts) for parts in zip(*states, strict=True)])
