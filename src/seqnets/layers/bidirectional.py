"""Two cells, or two layers, over the same sequences: one in each direction of time."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.wrapper import redraw
from seqnets.checks import check_choice
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.checks import check_is_layer, check_parts, check_run, no_step
from seqnets.layers.cuda_streams import side_by_side
from seqnets.layers.lengths import checked_lengths, resets_from_behind, turned
from seqnets.layers.recurrent import Recurrent

_MERGES = ("concat", "sum", "mean", "none")


class Reversed(nn.Module):
    """Run any layer backwards in time: from each row's last valid step to its first.

    For a single cell ``Recurrent(cell, reverse=True)`` does the same without a copy.

    Args:
        layer: A layer in one direction of time, whose outputs are as many as its inputs.

    Raises:
        ConfigError: ``layer`` is no recurrent layer.
    """

    reverse = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        check_is_layer("Reversed", layer)
        self.layer = layer

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.layer.input_size  # type: ignore[return-value]

    @property
    def output_size(self) -> int:
        """Features of the output."""
        return self.layer.output_size  # type: ignore[return-value]

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Outputs (B, T, H), each at the place of its input, and the state after the first step.

        Args:
            x: Inputs, (B, T, I).
            state: The state after each row's last step; the layer's initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where the state starts anew before a step, in the order in which the steps
                run, (B, T) boolean.

        Raises:
            ShapeError: A length is outside 0..T, or the layer gives more or fewer steps than it
                takes.
        """
        lengths = checked_lengths("Reversed", lengths, x)
        resets = None if resets is None else turned(resets, lengths)
        y, state = self.layer(turned(x, lengths), state, lengths, resets)
        if y.shape[1] != x.shape[1]:
            raise ShapeError(
                f"Reversed: {type(self.layer).__name__} gave {counted(y.shape[1], 'step')} for "
                f"{x.shape[1]}, expected as many."
            )
        return turned(y, lengths), state

    def step(self, x: Tensor, state: Any = None, resets: Tensor | None = None) -> NoReturn:
        """Not to be had.

        Raises:
            ConfigError: Always: the first step to run is the last of a sequence.
        """
        raise no_step("Reversed", "it runs backwards")


class Bidirectional(nn.Module):
    """Run one cell forwards and one backwards, and merge what they say of each step.

    Two layers in their place, say two of :class:`DeepRNN`, are stacks that see nothing of each
    other until their outputs are merged.

    Args:
        cell: Runs from first step to last: a cell, or a layer in one direction of time.
        backward_cell: Runs from last step to first, likewise: a layer is run backwards by
            :class:`Reversed`. If omitted, a copy of ``cell`` with parameters drawn anew.
        merge: "concat" (outputs (B, T, 2H)), "sum", "mean", or "none" (a pair of outputs).
        backend: "auto", or the name of the backend that must run the cells.
        memory: "full" or "lean" for the cells; see ``unroll``.

    Raises:
        ConfigError: ``merge`` is none of these, no backend or memory has this name, ``cell`` is
            neither cell nor layer, a layer has no backward one beside it, or a backend or memory is
            given for layers, which have their own.
        ShapeError: The cells differ in input size, or in output size under "sum" or "mean".

    Example:
        >>> stacks = (DeepRNN(cells.LSTMCell, 8, 64, num_layers=3) for _ in range(2))
        >>> layer = Bidirectional(*stacks)

    References:
        Schuster & Paliwal, 1997, "Bidirectional Recurrent Neural Networks".
    """

    forward_layer: Any
    backward_layer: Any

    def __init__(
        self,
        cell: nn.Module,
        backward_cell: nn.Module | None = None,
        *,
        merge: str = "concat",
        backend: str = "auto",
        memory: str = "full",
    ) -> None:
        super().__init__()
        check_choice("Bidirectional", _MERGES, merge=merge)
        check_run("Bidirectional", backend, memory)
        self.merge = merge
        options = {"backend": backend, "memory": memory}
        self.forward_layer = _layer(cell, options, reverse=False)
        back = _redrawn(cell) if backward_cell is None else backward_cell
        self.backward_layer = _layer(back, options, reverse=True)
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
        state: tuple[Any, Any] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, tuple[Any, Any]]:
        """Merged outputs, and the state in which each direction ended.

        Args:
            x: Inputs, (B, T, I).
            state: A pair of states: before the first step, and after the last one for the
                direction that begins there; initial states if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where a new sequence begins inside a row, (B, T) boolean. Neither direction
                carries anything across.
        """
        before, after = _pair(state)
        behind = resets_from_behind(resets, lengths)
        (ahead, forward_state), (back, backward_state) = side_by_side(
            x,
            lambda: self.forward_layer(x, before, lengths, resets),
            lambda: self.backward_layer(x, after, lengths, behind),
        )
        return self._merge(ahead, back), (forward_state, backward_state)

    def step(self, x: Tensor, state: Any = None, resets: Tensor | None = None) -> NoReturn:
        """Not to be had.

        Raises:
            ConfigError: Always: one of the directions begins at a sequence's end.
        """
        raise no_step("Bidirectional", "it runs in both directions")

    def extra_repr(self) -> str:
        """How the directions are merged."""
        return f"merge={self.merge!r}"

    def _merge(self, ahead: Tensor, back: Tensor) -> Any:
        if self.merge == "concat":
            return torch.cat([ahead, back], -1)
        if self.merge == "none":
            return ahead, back
        return ahead + back if self.merge == "sum" else (ahead + back) / 2


def runs_ahead(module: nn.Module) -> bool:
    """Whether nothing in a layer comes from the future."""
    return not any(getattr(part, "reverse", False) for part in module.modules())


def _layer(cell: nn.Module, options: dict[str, str], *, reverse: bool) -> nn.Module:
    if isinstance(cell, Cell):
        return Recurrent(cell, reverse=reverse, **options)
    check_is_layer("Bidirectional", cell, "cell", "a cell or a recurrent layer")
    given = [
        f"{name}={value!r}"
        for name, value in options.items()
        if value != {"backend": "auto", "memory": "full"}[name]
    ]
    if given:
        raise ConfigError(
            f"Bidirectional: {' and '.join(given)} came with {type(cell).__name__}, expected "
            f"neither.\n  They are for cells; a layer has its own."
        )
    if not runs_ahead(cell):
        raise ConfigError(
            f"Bidirectional: {type(cell).__name__} runs backwards or in both directions, expected "
            f"ahead.\n  What runs backwards here is turned by Bidirectional itself."
        )
    return Reversed(cell) if reverse else cell


def _redrawn(cell: nn.Module) -> nn.Module:
    other = copy.deepcopy(cell)
    try:
        if not isinstance(other, Cell):
            raise ConfigError(
                f"Bidirectional: {type(cell).__name__} came alone, expected two layers."
            )
        redraw(other)
    except ConfigError as error:
        raise ConfigError(f"{error}\n  Give Bidirectional a backward_cell.") from error
    return other


def _pair(state: Any) -> tuple[Any, Any]:
    if state is None:
        return None, None
    check_parts("Bidirectional", state, 2, "a pair: (forward state, backward state)")
    return state[0], state[1]
