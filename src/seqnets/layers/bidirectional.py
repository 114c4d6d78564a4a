"""Two cells or layers over the same sequences, one in each direction of time."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.checks import takes_elapsed
from seqnets.cells.constructors import checks_calls
from seqnets.cells.redrawing import redraw
from seqnets.checks import check_choice, name_of
from seqnets.engine.lengths import reverse_time
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers.around import Around
from seqnets.layers.checks import (
    cannot_step,
    check_every_step,
    check_gives_one_output,
    check_is_layer,
    check_parts,
    check_run_options,
    runs_forward,
)
from seqnets.layers.cuda_streams import run_concurrently
from seqnets.layers.lengths import checked_lengths, resets_for_reverse, times_for_reverse
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.torch_base import leaf_call

_MERGES = ("concat", "sum", "mean", "none")


class Reversed(Around):
    """Run any layer backwards in time: from each row's last valid step to its first.

    For a single cell ``Recurrent(cell, reverse=True)`` does the same without a copy.

    Args:
        layer: A unidirectional layer with one output for each input step.

    Raises:
        ConfigError: ``layer`` is not a recurrent layer, or gives a pair of outputs.
    """

    reverse = True

    @checks_calls
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        check_is_layer("Reversed", layer)
        check_gives_one_output("Reversed", layer)
        self.layer = layer

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Outputs (B, T, H), aligned with the inputs, and the state after the first step.

        Args:
            x: Inputs, (B, T, I).
            state: The state after each row's last step; the layer's initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Steps before which the state is reset, in the order in which the steps run,
                (B, T) boolean.

        Raises:
            ShapeError: A length is outside 0..T, or the layer changes the number of steps.
        """
        lengths = checked_lengths("Reversed", lengths, x)
        resets = None if resets is None else reverse_time(resets, lengths)
        y, state = self.layer(reverse_time(x, lengths), state, lengths, resets)
        check_every_step("Reversed", self.layer, y, x)
        return reverse_time(y, lengths), state

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(self, x: Tensor, state: Any = None, resets: Tensor | None = None) -> NoReturn:
        """Unsupported: the first step to run is the last of a sequence.

        Raises:
            ConfigError: Always.
        """
        raise cannot_step("Reversed", "it runs backwards")


class Bidirectional(nn.Module):
    """Run one cell forwards and one backwards, and merge their outputs at each step.

    Whole layers may take the place of the cells: two :class:`DeepRNN` are independent stacks whose
    final outputs are merged. Where a cell takes the time elapsed (``timed``), the backward one
    reads the time to the step that follows, and at the last step that of the first.

    Args:
        cell: Runs from first step to last: a cell or a unidirectional layer.
        backward_cell: Runs from last step to first: a cell or a unidirectional layer, which is
            wrapped in :class:`Reversed`. By default a copy of ``cell`` with freshly drawn
            parameters; required for layers.
        merge: "concat" (outputs (B, T, 2H)), "sum", "mean", or "none" (a pair of outputs).
        backend: "auto", or the name of the backend that must run the cells.
        memory: "full" or "lean" for the cells; see ``unroll``.

    Raises:
        ConfigError: ``merge``, ``backend`` or ``memory`` is unknown, ``cell`` is neither cell nor
            layer, a layer comes without a backward one, or a backend or memory is given for
            layers, which have their own.
        ShapeError: The cells differ in input size, or in output size under "sum" or "mean".

    Example:
        >>> stacks = (DeepRNN(cells.LSTMCell, 8, 64, num_layers=3) for _ in range(2))
        >>> layer = Bidirectional(*stacks)

    References:
        Schuster & Paliwal, 1997, "Bidirectional Recurrent Neural Networks".
    """

    forward_layer: Any
    backward_layer: Any
    _elapses = False

    @checks_calls
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
        check_run_options("Bidirectional", backend, memory)
        self.merge = merge
        options = {"backend": backend, "memory": memory}
        self.forward_layer = _layer(cell, options, reverse=False)
        back = _redrawn(cell) if backward_cell is None else backward_cell
        self.backward_layer = _layer(back, options, reverse=True)
        inside = self.backward_layer.modules()
        self._elapses = any(isinstance(part, Cell) and takes_elapsed(part) for part in inside)
        widths = self.forward_layer.output_size, self.backward_layer.output_size
        sides = self.forward_layer, self.backward_layer
        taken = [getattr(side, "input_size", None) for side in sides]  # frames have none
        if taken[0] != taken[1]:
            raise ShapeError(
                f"Bidirectional: the cells take {taken[0]} and {taken[1]} features, expected the "
                f"same number."
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
        """Features of the merged output; under "none", of each output of the pair."""
        width = self.forward_layer.output_size
        return width + self.backward_layer.output_size if self.merge == "concat" else width

    def forward(
        self,
        x: Tensor,
        state: tuple[Any, Any] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, tuple[Any, Any]]:
        """Merged outputs, and the final state of each direction.

        Args:
            x: Inputs, (B, T, I).
            state: A pair of states, one for each direction: before the first step, and after the
                last one, where the backward direction begins; initial states if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where a new sequence begins inside a row, (B, T) boolean. Neither direction
                carries anything across.

        Raises:
            ShapeError: A length is outside 0..T, or a layer changes the number of steps.
        """
        if isinstance(x, torch.fx.Proxy):
            return leaf_call(self, x, state, lengths, resets)
        forward_start, backward_start = _pair(state)
        backward_resets = resets_for_reverse(resets, lengths)
        backward = self._with_times if self._elapses else self.backward_layer
        (forward_y, forward_state), (backward_y, backward_state) = run_concurrently(
            x,
            partial(self.forward_layer, x, forward_start, lengths, resets),
            partial(backward, x, backward_start, lengths, backward_resets),
        )
        check_every_step("Bidirectional", self.forward_layer, forward_y, x)
        return self._merge(forward_y, backward_y), (forward_state, backward_state)

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(self, x: Tensor, state: Any = None, resets: Tensor | None = None) -> NoReturn:
        """Unsupported: one of the directions begins at a sequence's end.

        Raises:
            ConfigError: Always.
        """
        raise cannot_step("Bidirectional", "it runs in both directions")

    def extra_repr(self) -> str:
        """How the directions are merged."""
        return f"merge={self.merge!r}"

    def _with_times(
        self, x: Tensor, state: Any, lengths: Tensor | None, resets: Tensor | None
    ) -> tuple[Any, Any]:
        """The backward layer, over inputs with the times to the steps that follow."""
        return self.backward_layer(times_for_reverse(x, lengths, resets), state, lengths, resets)

    def _merge(self, forward: Tensor, backward: Tensor) -> Any:
        if self.merge == "concat":
            return torch.cat([forward, backward], -1)
        if self.merge == "none":
            return forward, backward
        total = forward + backward
        return total if self.merge == "sum" else total / 2


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
            f"Bidirectional: got {' and '.join(given)} with {name_of(cell)}, expected "
            f"neither.\n  They are for cells; set them on the layers themselves."
        )
    if not runs_forward(cell):
        raise ConfigError(
            f"Bidirectional: {name_of(cell)} runs backwards or in both directions, expected "
            f"a forward layer.\n  Bidirectional reverses the backward layer itself."
        )
    return Reversed(cell) if reverse else cell


def _redrawn(cell: nn.Module) -> nn.Module:
    other = copy.deepcopy(cell)
    try:
        if not isinstance(other, Cell):
            raise ConfigError(f"Bidirectional: got {name_of(cell)} alone, expected two layers.")
        redraw(other)
    except ConfigError as error:
        raise ConfigError(f"{error}\n  Give Bidirectional a backward_cell.") from error
    return other


def _pair(state: Any) -> tuple[Any, Any]:
    if state is None:
        return None, None
    check_parts("Bidirectional", state, 2, "a pair: (forward state, backward state)")
    return state[0], state[1]
