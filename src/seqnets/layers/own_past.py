"""Approximations of RTRL in which a unit's past reaches only the unit itself: SnAp-1, e-prop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqnets.cells import Cell, Wrapper
from seqnets.cells.constructors import checks_calls
from seqnets.cells.wrapper import gated
from seqnets.checks import name_of
from seqnets.errors import ConfigError
from seqnets.layers.online import RTRL
from seqnets.layers.recurrent import Recurrent
from seqnets.typing import State


class _Cut(Wrapper):
    """A cell with the same step, whose derivative lacks recurrent products."""

    outermost = True

    def step(self, wx: Tensor, state: State) -> State:
        """The cell's."""
        return self.cell.adapted(recur=self.cut).step(wx, state)

    def cut(self, recur: Callable[..., Any]) -> Callable[..., Any]:
        """The products of ``recur``, constant in what they multiply."""
        return lambda h, *gates: recur(h.detach(), *gates)


class _OwnWeight(_Cut):
    """A cut that keeps the derivative of the weight by which each unit reaches itself."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        inner = gated("SnAp1", cell)
        came, units = tuple(inner.weight_hh.shape), inner.hidden_size
        if came != (len(inner.recurrent) * units, units):
            raise ConfigError(
                f"SnAp1: weight_hh of {inner._name} has shape {came}, expected a block ({units}, "
                f"{units}) for each gate: it takes a unit's weights on itself from there."
            )

    def cut(self, recur: Callable[..., Any]) -> Callable[..., Any]:
        """The products, with the derivative that the weights' diagonals have."""

        def products(h: Tensor, *gates: str) -> Any:
            cell: Any = self.innermost
            blocks = cell.weight_hh.unflatten(0, (len(cell.recurrent), -1))
            own = dict(zip(cell.recurrent, blocks.diagonal(dim1=1, dim2=2), strict=True))
            change = h - h.detach()  # zero, but for its derivative
            found = recur(h.detach(), *gates)
            pairs = zip(gates or cell.recurrent, found, strict=True)
            return type(found)(*(product + own[gate] * change for gate, product in pairs))

        return products


class SnAp1(RTRL):
    """The sparsest approximation of RTRL: parameters influence their own unit alone.

    A unit's past counts as far as it reaches the unit itself within a step, its recurrent weight
    on itself included. Nothing flows back in time by way of other units, neither between calls nor
    inside them. The influence takes B·K·P numbers, for K parts of the state and P parameters. For
    cells whose units depend on no other's past this is RTRL.

    Args:
        layer: Of a cell that mixes its units by ``recur`` of the state before alone.
        limit: As for :class:`RTRL`.

    Raises:
        ConfigError: As for :class:`RTRL`, or the cell mixes its units in another way, or computes a
            weight of parameters that several units share.

    References:
        Menick et al., 2021, "A Practical Sparse Approximation for Real Time Recurrent Learning",
        arXiv:2006.07232.
    """

    _cut: ClassVar[type[_Cut]] = _OwnWeight

    @checks_calls
    def __init__(self, layer: Recurrent, *, limit: float = 4096) -> None:
        super().__init__(layer, limit=limit)
        who = name_of(self)
        if not isinstance(layer, Recurrent):
            raise ConfigError(
                f"{who}: layer is {name_of(layer)}, expected Recurrent.\n"
                f"  The rule is that of a cell; wrap each layer of a stack."
            )
        if self.influence.mixes:
            gated(who, layer.cell, "RTRL takes any cell.")
            cell = self._cut(layer.cell)
            self.layer = Recurrent(cell, backend=layer.backend, memory=layer.memory)
            self._known = None
            if self.influence.mixes or not _multiplies_states_alone(layer.cell):
                raise ConfigError(
                    f"{who}: the units of {layer.cell._name} depend on each other by more than "
                    f"recur of the state before, or share parameters, as in a parametrization, "
                    f"expected neither.\n  RTRL takes any cell."
                )


class EProp(SnAp1):
    """Eligibility propagation: a unit's past counts only by way of its own memory.

    As :class:`SnAp1`, but no recurrent product leads back in time, not even a unit's weight on
    itself. What remains is the memory: what an LSTM's forget gate lets through, the leak of a
    neuron; of a plain RNN nothing. Errors reach the outputs by the loss's own weights, which the
    paper calls symmetric; it has random ones too.

    Args:
        layer: As for :class:`SnAp1`.
        limit: As for :class:`RTRL`.

    Raises:
        ConfigError: As for :class:`SnAp1`.

    References:
        Bellec et al., 2020, "A solution to the learning dilemma for recurrent networks of spiking
        neurons", Nature Communications 11.
    """

    _cut = _Cut


def _multiplies_states_alone(cell: Cell) -> bool:
    """Whether recurrent products multiply the state alone, not what the step computed from it."""
    multiplied: list[Tensor] = []

    def kept(recur: Callable[..., Any]) -> Callable[..., Any]:
        def call(h: Tensor, *gates: str) -> Any:
            multiplied.append(h)
            return recur(h, *gates)

        return call

    with torch.enable_grad():
        wx = cell.project(cell._like.new_zeros(1, cell.input_size)).detach().requires_grad_()
        start = tuple([part.detach() for part in cell.initial_state(1)])
        cell.adapted(recur=kept).step(wx, start)
    return not any(h.requires_grad for h in multiplied)
