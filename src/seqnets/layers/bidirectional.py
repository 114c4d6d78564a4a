"""Two cells over the same sequences, one in each direction of time."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.wrapper import redraw
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers.recurrent import Recurrent
from seqnets.typing import State

_MERGES = ("concat", "sum", "mean", "none")


class Bidirectional(nn.Module):
    """Run one cell forwards and one backwards, and merge what they say of each step.

    Args:
        cell: Runs from first step to last.
        backward_cell: Runs from last step to first; if omitted, a copy of ``cell`` with
            parameters drawn anew.
        merge: "concat" (outputs (B, T, 2H)), "sum", "mean", or "none" (a pair of outputs).
        backend: "auto", or the name of the backend that must run.
        memory: "full" or "lean"; see ``unroll``.

    Raises:
        ConfigError: ``merge`` is none of these.
        ShapeError: The cells differ in input size, or in output size under "sum" or "mean".

    References:
        Schuster & Paliwal, 1997, "Bidirectional Recurrent Neural Networks".
    """

    def __init__(
        self,
        cell: Cell,
        backward_cell: Cell | None = None,
        *,
        merge: str = "concat",
        backend: str = "auto",
        memory: str = "full",
    ) -> None:
        super().__init__()
        if merge not in _MERGES:
            raise ConfigError(
                f"Bidirectional: merge is {merge!r}, expected one of {', '.join(_MERGES)}."
            )
        self.merge = merge
        self.forward_layer = Recurrent(cell, backend=backend, memory=memory)
        self.backward_layer = Recurrent(
            _redrawn(cell) if backward_cell is None else backward_cell,
            reverse=True,
            backend=backend,
            memory=memory,
        )
        widths = self.forward_layer.output_size, self.backward_layer.output_size
        if self.forward_layer.input_size != self.backward_layer.input_size:
            raise ShapeError(
                f"Bidirectional: the cells take {self.forward_layer.input_size} and "
                f"{self.backward_layer.input_size} features, expected the same number."
            )
        if merge in ("sum", "mean") and widths[0] != widths[1]:
            raise ShapeError(
                f"Bidirectional: the cells' outputs are {widths[0]} and {widths[1]} wide, "
                f"expected the same width.\n  merge={merge!r} adds them; use 'concat' instead."
            )

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.forward_layer.input_size

    @property
    def output_size(self) -> int:
        """Features of the merged output; of each of the pair under "none"."""
        width = self.forward_layer.output_size
        return width + self.backward_layer.output_size if self.merge == "concat" else width

    def forward(
        self,
        x: Tensor,
        state: tuple[State, State] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, tuple[State, State]]:
        """Merged outputs, and the state in which each direction ended.

        Args:
            x: Inputs, (B, T, I).
            state: A pair of states: before the first step, and after the last one for the
                direction that begins there; initial states if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where a new sequence begins inside a row, (B, T) boolean. Neither direction
                carries anything across.
        """
        forward_state, backward_state = _pair(state)
        ahead, forward_state = self.forward_layer(x, forward_state, lengths, resets)
        back, backward_state = self.backward_layer(
            x, backward_state, lengths, _as_seen_backwards(resets, lengths)
        )
        return self._merge(ahead, back), (forward_state, backward_state)

    def extra_repr(self) -> str:
        """How the directions are merged."""
        return f"merge={self.merge!r}"

    def _merge(self, ahead: Tensor, back: Tensor) -> Any:
        if self.merge == "concat":
            return torch.cat([ahead, back], -1)
        if self.merge == "none":
            return ahead, back
        return ahead + back if self.merge == "sum" else (ahead + back) / 2


def _redrawn(cell: Cell) -> Cell:
    other = copy.deepcopy(cell)
    try:
        redraw(other)
    except ConfigError as error:
        raise ConfigError(f"{error}\n  Or give Bidirectional a backward_cell.") from error
    return other


def _pair(state: Any) -> tuple[State | None, State | None]:
    if state is None:
        return None, None
    if isinstance(state, Tensor) or len(state) != 2:
        raise ShapeError(
            "Bidirectional: state is not a pair, expected (forward state, backward state)."
        )
    return state[0], state[1]


def _as_seen_backwards(resets: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    """A sequence that begins at t ends, for who comes from behind, before the step t - 1."""
    if resets is None:
        return None
    if lengths is not None:
        steps = torch.arange(resets.shape[1], device=resets.device)
        resets = resets & (steps < lengths.to(resets.device)[:, None])
    return F.pad(resets[:, 1:], (0, 1))
