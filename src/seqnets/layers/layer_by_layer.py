"""Layers and directions of a module with torch.nn's interface, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.cells import GatedCell
from seqnets.layers.ragged import unroll_packed
from seqnets.typing import State


@dataclass
class LayerByLayer:
    """The layers of a module for one call, each run by itself.

    Attributes:
        cells: One for each layer and direction; of two directions, the second runs backwards.
        unrolls: What runs each of them over a batch: ``unroll``, or what takes its place.
        directions: D, 1 or 2.
        dropout: Probability of dropping an output between layers, in training.
        training: Whether outputs are dropped in this call.
    """

    cells: Sequence[GatedCell]
    unrolls: Sequence[Callable[..., tuple[Tensor, State]]]
    directions: int
    dropout: float
    training: bool

    def over_padded(
        self, x: Tensor, state: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Run over a padded batch.

        Args:
            x: Inputs, (B, T, I).
            state: State before the first step, each (L*D, B, H); the cells' initial states if None.
            lengths: Valid steps of each row, (B,); all T if omitted.

        Returns:
            Outputs, (B, T, D*H), and the state after each row's last valid step, like ``state``.
        """

        def run_cell(place: int, x: Tensor, state: State | None, reverse: bool) -> Any:
            y, final = self.unrolls[place](self.cells[place], x, state, lengths, reverse=reverse)
            return _time_first(y), final

        return self._run(_time_first(x), state, run_cell, _side_by_side)

    def over_packed(self, data: Tensor, sizes: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Run over packed rows, piece by piece; see :func:`unroll_packed`.

        Args:
            data: All rows' first steps, then all second steps and so on, (N, I).
            sizes: How many rows have each step, in descending order, (T,).
            state: State before the first step, each (L*D, B, H), longest rows first; the
                cells' initial states if None.

        Returns:
            Outputs, (N, D*H), and the state after each row's last step, like ``state``.
        """

        def run_cell(place: int, x: Tensor, state: State | None, reverse: bool) -> Any:
            return unroll_packed(self.unrolls[place], self.cells[place], x, sizes, state, reverse)

        return self._run(data, state, run_cell, partial(torch.cat, dim=-1))

    def _run(
        self,
        x: Tensor,
        state: State | None,
        run_cell: Callable[[int, Tensor, State | None, bool], tuple[Tensor, State]],
        concatenate: Callable[[list[Tensor]], Tensor],
    ) -> tuple[Tensor, State]:
        """Run each layer over the outputs of the one below.

        Args:
            x: Inputs, padded or packed.
            state: State before the first step, each (L*D, B, H), or None.
            run_cell: Runs the cell at a place over such inputs from a state, each (B, H), forwards
                or backwards: the outputs, laid out like the inputs, and the final state.
            concatenate: Concatenates the features of both directions' outputs.
        """
        D, finals = self.directions, []
        for first in range(0, len(self.cells), D):
            if first and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for place in range(first, first + D):
                before = None if state is None else tuple([part[place] for part in state])
                y, final = run_cell(place, x, before, place > first)
                outputs.append(y)
                finals.append(final)
            x = outputs[0] if D == 1 else concatenate(outputs)
        if len(finals) == 1:
            return x, tuple([part.unsqueeze(0) for part in finals[0]])
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def _time_first(x: Tensor) -> Tensor:
    """A tensor (B, T, C) that is contiguous as (T, B, C), as in torch.nn.

    Dropout draws its masks in that order, and outputs can be viewed as (T * B, C).
    """
    if 1 in x.shape[:2] and x.is_contiguous():  # then both orders are one
        return x
    time_major = x.transpose(0, 1)
    return x if time_major.is_contiguous() else time_major.contiguous().transpose(0, 1)


def _side_by_side(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs (B, T, C) with their features concatenated, contiguous as (T, B, C)."""
    return torch.cat([y.transpose(0, 1) for y in outputs], -1).transpose(0, 1)
