"""Weights that are computed from what is learned, once per call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from seqnets import initializers
from seqnets.cells.base import Cell
from seqnets.cells.gated import GatedCell


class ComputedCell(GatedCell):
    """A gated cell whose recurrent matrix is computed from what is learned.

    The matrix is ``weight_hh``, as everywhere; what is learned is
    ``parametrizations.weight_hh.original``, of the same shape.
    """

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        compute(self, "weight_hh", self.parametrization())

    def parametrization(self) -> nn.Module:
        """The module that computes the matrix from what is learned."""
        raise NotImplementedError(f"{self._name} does not say how its weight_hh is computed.")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and :meth:`draw_` for what is learned."""
        super().reset_parameters()
        self.draw_(self.learned("weight_hh"))

    def draw_(self, weight: Tensor) -> None:
        """Fill what is learned: by default with an orthogonal matrix for each gate."""
        initializers.orthogonal_(weight, len(self.recurrent))


def compute(cell: Cell, name: str, parametrization: nn.Module) -> None:
    """Let a parametrization compute a parameter of a cell; the cell can still be pickled."""
    parametrize.register_parametrization(cell, name, parametrization)
    type(cell).__reduce_ex__ = _reduce  # type: ignore[assignment]  # a class of its own by now


def can_be_set(cell: Cell, name: str) -> bool:
    """Whether a parameter can be set to any values: it is learned as it is, masked or in blocks.

    A rotation, or a matrix with given signs, does not determine the numbers it is computed from.
    """
    return not parametrize.is_parametrized(cell, name) or all(
        hasattr(part, "right_inverse") for part in cell.parametrizations[name]
    )


def _reduce(cell: Cell, protocol: Any) -> tuple[Any, ...]:
    """Pickle a parametrized cell, whose class torch made for it alone, by its original class."""
    return _revived, (parametrize.type_before_parametrizations(cell), vars(cell))


def _revived(kind: type[Cell], attributes: dict[str, Any]) -> Cell:
    cell = object.__new__(kind)
    cell.__dict__.update(attributes)
    computed: Any = cell._modules.pop("parametrizations")
    for name in computed:
        cell.register_parameter(name, nn.Parameter(torch.empty(0)))
        compute(cell, name, nn.Identity())
    cell._modules["parametrizations"] = computed
    return cell
