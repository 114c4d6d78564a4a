"""Units that either excite or inhibit all others: Dale's law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.base import Cell
from seqnets.cells.computed import compute
from seqnets.cells.gated import GatedCell
from seqnets.cells.redrawing import register_initializer
from seqnets.cells.wrapper import with_square_weights
from seqnets.checks import check_number
from seqnets.errors import ConfigError


def dale(cell: Cell, excitatory: float = 0.8) -> Cell:
    r"""Let each unit either excite or inhibit all others, in any gated cell: :math:`|U| D`.

    D is diagonal: 1 for the first units, which excite, and -1 for the others. So what a unit sends
    to others, a column of ``weight_hh``, has one sign. This is a parametrization
    (``torch.nn.utils.parametrize``): the cell keeps its class, its kernels and the name of its
    weight, and learns ``parametrizations.weight_hh.original``, whose signs do not count.

    The weights are drawn anew from a normal distribution, those of inhibitory units larger, so that
    all units together excite as much as they inhibit; then each gate's matrix is scaled to a
    spectral radius of 1. The paper draws from a gamma distribution, scales to 1.5, and keeps the
    signs by :math:`[U]_+`. Its weights of the input have one sign, too, and its readout is from
    excitatory units alone.

    Args:
        cell: The recurrence, around a :class:`GatedCell` with recurrent gates.
        excitatory: The share of units that excite, above 0 and below 1; there is at least one of
            either kind.

    Returns:
        The cell itself.

    Raises:
        ConfigError: The share is out of its range, there is one unit alone, or the cell has no
            square recurrent matrix for each gate that is learned as it is.

    Example:
        >>> cell = dale(CTRNNCell(8, 100), excitatory=0.8)

    References:
        Song et al., 2016, "Training Excitatory-Inhibitory Recurrent Neural Networks for Cognitive
        Tasks: A Simple and Flexible Framework", PLoS Computational Biology 12(2),
        doi:10.1371/journal.pcbi.1004792.
    """
    check_number("dale", above=0, below=1, excitatory=excitatory)
    inner = with_square_weights("dale", cell)
    units = inner.hidden_size
    if units < 2:
        raise ConfigError(
            f"dale: {inner._name} has 1 unit, expected one that excites and one that inhibits."
        )
    first = min(max(round(excitatory * units), 1), units - 1)
    compute(inner, "weight_hh", _Signs(first))
    _start(inner)
    register_initializer(inner, _start)
    return cell


@torch.no_grad()
def _start(cell: GatedCell) -> None:
    """Draw weights in balance."""
    weight = cell.learned("weight_hh")
    signs: Any = cell.parametrizations["weight_hh"][0]
    for block in weight.chunk(len(cell.recurrent)):
        nn.init.normal_(block).abs_()
        block[:, signs.excitatory :] *= signs.excitatory / (block.shape[1] - signs.excitatory)
        initializers.scale_to_radius_(block, 1.0, signs(block))


class _Signs(nn.Module):
    """Columns of one sign: above 0 for the first ones, and below for the others."""

    def __init__(self, excitatory: int) -> None:
        super().__init__()
        self.excitatory = excitatory

    def forward(self, weight: Tensor) -> Tensor:
        size = weight.abs()
        return torch.cat([size[:, : self.excitatory], -size[:, self.excitatory :]], 1)
