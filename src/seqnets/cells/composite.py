"""Cells made of cells: gating before a step, several updates in a step, and dilation."""

from __future__ import annotations

import copy
from itertools import count, islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.base import Cell
from seqnets.cells.checks import check_reads_last_state, check_untimed
from seqnets.cells.gated import GatedCell
from seqnets.cells.redrawing import redraw
from seqnets.cells.wrapper import Wrapper
from seqnets.checks import check_count, name_of
from seqnets.errors import ConfigError
from seqnets.typing import State


class Mogrifier(Wrapper):
    r"""Let input and output gate each other, in turns, before the cell sees them.

    .. math::
        x^i &= 2 \sigma(Q^i h^{i-1}) \odot x^{i-2} \quad\text{for odd } i \le r \\
        h^i &= 2 \sigma(R^i x^{i-1}) \odot h^{i-2} \quad\text{for even } i \le r

    with :math:`x^{-1} = x_t` and :math:`h^0 = h_{t-1}`; the cell takes the last of each. Differs
    from the paper in one place: the matrices are full, not products of two narrow ones.

    The cell's own projection happens inside the step, since what it multiplies depends on the
    state. So options that draw noise for a whole sequence go around it, and what normalises that
    product goes inside: ``Zoneout(Mogrifier(LayerNorm(cell)))``.

    State: the cell's. Output: the cell's.

    Args:
        cell: The recurrence.
        rounds: How many gates, r, from 0; the first is the input's.

    Attributes:
        q_1: :math:`Q^1`, (I, H), and so on for odd rounds.
        r_2: :math:`R^2`, (H, I), and so on for even rounds.

    Raises:
        ConfigError: ``rounds`` is no integer from 0, or the cell's last feature is the time.

    References:
        Melis et al., 2020, "Mogrifier LSTM", arXiv:1909.01792.
    """

    projects_within = True

    def __init__(self, cell: Cell, rounds: int = 5) -> None:
        super().__init__(cell)
        check_count(self._name, least=0, rounds=rounds)
        check_untimed(self._name, cell, "The state would gate the time, as it gates all features.")
        self.rounds = rounds
        self.output_only = self.output_only and not rounds
        shape = (self.input_size, self.output_size)
        for i in range(1, rounds + 1):
            weight = nn.Parameter(self._like.new_empty(shape if i % 2 else shape[::-1]))
            self.register_parameter(_matrix(i), weight)
            initializers.xavier_(weight, 1)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for weight in self.parameters(recurse=False):
            initializers.xavier_(weight, 1)

    def project(self, x: Tensor) -> Tensor:
        """The input as it is."""
        return x

    def step(self, wx: Tensor, state: State) -> State:
        """The rounds above, then the cell's step."""
        x, (h, *rest) = wx, state
        for i in range(1, self.rounds + 1):
            matrix = getattr(self, _matrix(i))
            if i % 2:
                x = 2 * torch.sigmoid(F.linear(h, matrix)) * x
            else:
                h = 2 * torch.sigmoid(F.linear(x, matrix)) * h
        return self.cell.step(self.cell.project(x), (h, *rest))


def _matrix(i: int) -> str:
    return f"{'q' if i % 2 else 'r'}_{i}"


class DeepTransition(Wrapper):
    r"""Take several steps for each step of the input: the later ones see the state alone.

    .. math::
        s_t^1 &= \mathrm{cell}(x_t, s_{t-1}^n) \\
        s_t^k &= \mathrm{cell}_{k-1}(s_t^{k-1}), \quad 1 < k \le n

    Does not differ from the second paper, whose later cells have biases and no input weights.

    State: the cell's. Output: the cell's. Options around it change its first cell.

    Args:
        cell: Sees the input.
        others: The cells that follow, in this order; they lose their ``weight_ih``. If omitted,
            copies of ``cell`` with parameters drawn anew.
        depth: How many updates make a step, n, where ``others`` are omitted.

    Attributes:
        cell_1: The second update, and so on.

    Raises:
        ConfigError: A later cell is no :class:`GatedCell` that projects its input by weights
            alone, its state differs from the first one's, or ``depth`` is no integer from 1.

    References:
        Pascanu et al., 2014, "How to Construct Deep Recurrent Neural Networks", arXiv:1312.6026;
        Miceli Barone et al., 2017, "Deep Architectures for Neural Machine Translation",
        arXiv:1707.07631.
    """

    def __init__(self, cell: Cell, *others: GatedCell, depth: int = 2) -> None:
        super().__init__(cell)
        check_count(self._name, depth=depth)
        copies = range(depth - 1)
        following: tuple[Any, ...] = others or tuple(copy.deepcopy(cell) for _ in copies)
        self.depth = 1 + len(following)
        for k, other in enumerate(following, 1):
            self._check_other(k, other)
            self.add_module(f"cell_{k}", other)
            if not others:
                redraw(other)
            _forget_input(other)

    @property
    def others(self) -> list[GatedCell]:
        """The cells after the first."""
        return [getattr(self, f"cell_{k}") for k in range(1, self.depth)]

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for other in self.others:
            rows = len(other.inputs) * other.block_shape(1)[0]
            other.weight_ih = nn.Parameter(self._like.new_empty(rows, 1))  # so that it can be drawn
            redraw(other)
            _forget_input(other)

    def step(self, wx: Tensor, state: State) -> State:
        """The state after all updates."""
        state = self.cell.step(wx, state)
        for other in self.others:
            rows, size = len(state[0]), len(other.inputs) * other.block_shape(1)[0]
            bias = other.bias_ih
            nothing = state[0].new_zeros(rows, size) if bias is None else bias.expand(rows, -1)
            state = other.step(nothing, state)
        return state

    def check_parameters(self) -> None:
        """Raise if a parameter was replaced by one of another shape, dtype or device."""
        for cell in (self.cell, *self.others):
            cell.check_parameters()

    def _check_other(self, k: int, other: Cell) -> None:
        name = name_of(other)
        if not isinstance(other, GatedCell) or not _projects_plainly(type(other)):
            raise ConfigError(
                f"DeepTransition: cell {k} is {name}, expected a GatedCell that projects its "
                f"input by weight_ih alone.\n  It sees no input, and the weights are dropped."
            )
        if other.square or other is self.cell:
            raise ConfigError(
                f"DeepTransition: cell {k} is {name}, which "
                f"{'has the input itself in its equation' if other.square else 'is cell 0 too'}, "
                f"expected a cell of its own that can do without an input."
            )
        ours, theirs = (dict(zip(c.states, c.state_sizes, strict=True)) for c in (self.cell, other))
        if ours != theirs:
            raise ConfigError(
                f"DeepTransition: the state of cell {k}, {name}, is {theirs}, expected {ours}.\n"
                f"  It continues from the state of {name_of(self.cell)}."
            )


def _projects_plainly(kind: type[GatedCell]) -> bool:
    return kind.project is GatedCell.project and kind.product is GatedCell.product


def _forget_input(cell: GatedCell) -> None:
    cell.register_parameter("weight_ih", None)
    cell.parameter_shapes.pop("weight_ih", None)


class Dilated(Wrapper):
    r"""Go on from the state of several steps ago: as many sequences, interleaved.

    .. math::
        s_t = \mathrm{cell}(x_t, s_{t-d})

    Does not differ from the paper. A stack of them, with dilations 1, 2, 4, ..., sees far back:

        >>> cells = [
        ...     partial(optioned, cell=GRUCell, options=[partial(Dilated, dilation=2**k)])
        ...     for k in range(4)
        ... ]
        >>> net = DeepRNN(cells, 8, 64)

    State: that of the last step, then those of the steps before it, the newest first: ``(h, h_1,
    ...)`` or ``(h, c, h_1, c_1, ...)``, but for numbers that would give a name twice. Output: the
    cell's. All but the first count as clocks, so
    that options around it leave them as they are; what keeps or drops state goes inside,
    ``Dilated(Zoneout(cell), 4)``.

    Args:
        cell: The recurrence.
        dilation: How many steps back the state is read, d, from 1.

    Raises:
        ConfigError: ``dilation`` is no integer from 1, or the cell takes the time elapsed since
            the step before (``timed``), whose state it would not read.

    References:
        Chang et al., 2017, "Dilated Recurrent Neural Networks", arXiv:1710.02224.
    """

    def __init__(self, cell: Cell, dilation: int) -> None:
        super().__init__(cell)
        check_count(self._name, dilation=dilation)
        if dilation > 1:
            check_reads_last_state(self._name, cell, f"Its state is of {dilation} steps before")
        self.dilation = dilation
        taken = {*cell.states}  # by a dilation inside, say
        free = (k for k in count(1) if taken.isdisjoint(f"{name}_{k}" for name in taken))
        older = [f"{name}_{k}" for k in islice(free, dilation - 1) for name in cell.states]
        self.states, self.clocks = (*cell.states, *older), (*cell.clocks, *older)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state."""
        return self.cell.state_sizes * self.dilation

    def initial_state(self, batch_size: int) -> State:
        """The cell's initial state for each of the sequences."""
        return self.cell.initial_state(batch_size) * self.dilation

    def step(self, wx: Tensor, state: State) -> State:
        """The new state, and those before it but the one it came from."""
        parts = len(self.cell.states)
        return *self.cell.step(wx, state[-parts:]), *state[:-parts]
