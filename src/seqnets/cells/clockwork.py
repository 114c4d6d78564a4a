"""Units that are updated only now and then, each group at its own pace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells.base import Cell
from seqnets.cells.checks import check_reads_last_state
from seqnets.cells.computed import ComputedCell
from seqnets.cells.wrapper import Wrapper
from seqnets.checks import is_whole
from seqnets.errors import ConfigError
from seqnets.typing import State


class ClockworkRNNCell(ComputedCell):
    r"""Elman network in groups, of which the slow ones keep what the fast ones would forget.

    .. math::
        \tilde h_t &= \tanh(W x_t + b + U h_{t-1} + d) \\
        h_t &= \tilde h_t \text{ where } t \bmod T = 0, \quad h_{t-1} \text{ elsewhere},
        \qquad t = 0, 1, \ldots

    Each unit has the period :math:`T` of its group, and reads from groups with equal or longer
    periods: the other entries of :math:`U` are zero. Units are split evenly, as far as their number
    allows; where there are fewer units than periods, some periods have none.

    As in the paper.

    State: ``(h, phase)``, (B, H) each; ``phase`` counts the steps since each unit was due. Output:
    ``h``.

    Attributes:
        periods: T of each unit, (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        periods: The groups' periods in steps, from 1; up to 256, a number that every dtype can
            count to.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: There are no periods, or one is not an integer in 1..256.

    References:
        Koutník et al., 2014, "A Clockwork RNN", arXiv:1402.3511.
    """

    gates = ("h",)
    states = ("h", "phase")
    clocks = ("phase",)
    periods: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        periods: Sequence[int] = (1, 2, 4, 8),
        **options: Any,
    ) -> None:
        self.group_periods = _checked(self._name, periods)  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)
        periods_of_units = _spread(self.group_periods, self.hidden_size, self._like)
        self.register_buffer("periods", periods_of_units)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        _check_saved(self, state_dict.get(f"{prefix}periods"))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def parametrization(self) -> nn.Module:
        """The mask that keeps units from reading faster ones."""
        return _Masked(_slower(_spread(self.group_periods, self.hidden_size, self._like)))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every cell with a computed matrix; fills buffers too, which may come from "meta"."""
        super().reset_parameters()
        if "periods" not in self._buffers:  # super().__init__ is still running
            return
        self.periods.copy_(_spread(self.group_periods, self.hidden_size, self._like))
        for module in self.modules():
            if isinstance(module, _Masked):
                module.mask.copy_(_slower(self.periods))

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        h, phase = state
        new = self.candidate(wx.h + uh.h)
        return torch.where(_due(phase), new, h), _advanced(phase, self.periods)

    def _shown_values(self) -> dict[str, Any]:
        return {**super()._shown_values(), "periods": self.group_periods}


class Clockwork(Wrapper):
    """Update the units of any cell in groups, each at its own pace.

    A unit is due where the step, counted from 0, is a multiple of its group's period; else all its
    states stay as they were. The units of each state part are split evenly among the periods, and
    read from all others, be these faster or slower: that is how it differs from the paper.

    The wrapper adds state parts that count, ``phase_1`` and so on by their place in the state: one
    for each width that the cell's state parts have. The cell's own ``clocks`` run on at every step.

    Args:
        cell: The recurrence.
        periods: The groups' periods in steps, from 1; up to 256, a number that every dtype can
            count to.

    Raises:
        ConfigError: There are no periods, or one is not an integer in 1..256, or the cell takes
            the time elapsed since the step before (``timed``), which its units need not have taken.

    References:
        Koutník et al., 2014, "A Clockwork RNN", arXiv:1402.3511.
    """

    def __init__(self, cell: Cell, periods: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__(cell)
        self.group_periods = _checked(self._name, periods)
        if max(self.group_periods) > 1:
            check_reads_last_state(self._name, cell, "Its units wait for several steps")
            self.output_only = False
        parts = zip(cell.states, cell.state_sizes, strict=True)
        self.widths = tuple(dict.fromkeys(size for name, size in parts if name not in cell.clocks))
        places = range(len(cell.states), len(cell.states) + len(self.widths))
        self.phases = tuple(f"phase_{place}" for place in places)
        for phase, size in zip(self.phases, self.widths, strict=True):
            periods_of_units = _spread(self.group_periods, size, cell._like)
            self.register_buffer(f"periods_of_{phase}", periods_of_units)
        self.states += self.phases
        self.clocks += self.phases

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for phase in self.phases:
            _check_saved(self, state_dict.get(f"{prefix}periods_of_{phase}"))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state."""
        return (*self.cell.state_sizes, *self.widths)

    def initial_state(self, batch_size: int) -> State:
        """The cell's, and every unit due."""
        phases = (self._like.new_zeros(batch_size, size) for size in self.widths)
        return (*self.cell.initial_state(batch_size), *phases)

    def reset_parameters(self) -> None:
        """Draw the inner cell's parameters anew; fill buffers too, which may come from "meta"."""
        super().reset_parameters()
        for phase, size in zip(self.phases, self.widths, strict=True):
            periods_of_units = getattr(self, f"periods_of_{phase}")
            periods_of_units.copy_(_spread(self.group_periods, size, self.cell._like))

    def step(self, wx: Tensor, state: State) -> State:
        """A step of the units that are due."""
        inside = len(self.cell.states)
        before, phases = state[:inside], state[inside:]
        due = {size: _due(phase) for size, phase in zip(self.widths, phases, strict=True)}
        after = [
            new if name in self.cell.clocks else torch.where(due[size], new, old)
            for name, size, old, new in zip(
                self.cell.states,
                self.cell.state_sizes,
                before,
                self.cell.step(wx, before),
                strict=True,
            )
        ]
        periods = (getattr(self, f"periods_of_{phase}") for phase in self.phases)
        return (*after, *map(_advanced, phases, periods))

    def _shown_values(self) -> dict[str, Any]:
        return {**super()._shown_values(), "periods": self.group_periods}


class _Masked(nn.Module):
    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def _checked(owner: str, periods: Sequence[int]) -> tuple[int, ...]:
    """The periods; raise unless each is an integer in 1..256."""
    if not isinstance(periods, Iterable):
        raise ConfigError(f"{owner}: periods are {periods!r}, expected a list of integers.")
    periods = tuple(periods)
    if not periods:
        raise ConfigError(f"{owner}: periods are empty, expected at least one.")
    for period in periods:
        if not is_whole(period) or not 1 <= period <= 256:
            raise ConfigError(
                f"{owner}: a period is {period!r}, expected an integer in 1..256, in steps."
            )
    return periods


def _check_saved(cell: ClockworkRNNCell | Clockwork, saved: Tensor | None) -> None:
    """Raise ConfigError if periods that are to be loaded are not the cell's."""
    if saved is None or saved.dim() != 1 or saved.is_meta:
        return
    expected = _spread(cell.group_periods, len(saved), saved)
    if not torch.equal(saved, expected):
        raise ConfigError(
            f"{cell._name}: the saved periods are {saved.int().unique().tolist()}, expected "
            f"{sorted(cell.group_periods)}.\n  Make the cell with the saved ones: periods=(…)."
        )


def _spread(periods: tuple[int, ...], size: int, like: Tensor) -> Tensor:
    """The period of each of ``size`` units, (size,)."""
    return like.new_tensor([periods[unit * len(periods) // size] for unit in range(size)])


def _slower(periods: Tensor) -> Tensor:
    """1 where a unit, by row, may read from another: from units that are as slow or slower."""
    return (periods >= periods.unsqueeze(1)).to(periods.dtype)


def _due(phase: Tensor) -> Tensor:
    return phase < 1


def _advanced(phase: Tensor, periods: Tensor) -> Tensor:
    return torch.remainder(phase + 1, periods)
