"""Recurrent weights that are drawn once and never learned: echo state networks."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from seqnets import initializers
from seqnets.cells.base import Cell
from seqnets.cells.gated import GatedCell
from seqnets.cells.redrawing import register_initializer
from seqnets.cells.wrapper import with_square_weights
from seqnets.checks import check_number
from seqnets.errors import ConfigError, counted


def reservoir(cell: Cell, spectral_radius: float = 0.9, connectivity: float = 0.1) -> Cell:
    r"""Keep a gated cell as it is drawn: an echo state network, of which only the readout learns.

    Each gate's recurrent matrix is sparse, with numbers uniform around 0, and is scaled to a
    spectral radius; if all its eigenvalues are 0, which happens with few units, it is drawn again.
    All parameters of the cell are fixed (``requires_grad`` is False); the input's weights and the
    biases are drawn as in any cell, or by ``initialize``, before or after. Around
    :class:`LeakyRNNCell` this is the leaky echo state network.

    Differs from the paper in one place: the readout is the model's output layer, learned by
    gradients, and not a linear regression on all outputs at once.

    Args:
        cell: The recurrence, around a :class:`GatedCell` with recurrent gates.
        spectral_radius: The largest absolute eigenvalue of a gate's matrix, above 0: below 1 a
            state fades.
        connectivity: The share of its entries that are not 0, above 0 and at most 1.

    Returns:
        The cell itself.

    Raises:
        ConfigError: A number is out of its range, the cell has no square recurrent matrix for each
            gate that is not computed from others, or no matrix that is drawn has a radius, as
            where ``connectivity`` is low for few units.

    Example:
        >>> cell = reservoir(LeakyRNNCell(8, 500, alpha=0.3), spectral_radius=0.9)

    References:
        Jaeger, 2001, "The 'echo state' approach to analysing and training recurrent neural
        networks", GMD Report 148; Jaeger et al., 2007, "Optimization and applications of echo
        state networks with leaky-integrator neurons", Neural Networks 20(3).
    """
    check_number("reservoir", above=0, spectral_radius=spectral_radius)
    check_number("reservoir", above=0, most=1, connectivity=connectivity)
    inner = with_square_weights("reservoir", cell)
    start = partial(_start, radius=spectral_radius, connectivity=connectivity)
    start(inner)
    register_initializer(inner, start)
    for parameter in inner.parameters():
        parameter.requires_grad_(False)
    return cell


@torch.no_grad()
def _start(cell: GatedCell, radius: float, connectivity: float) -> None:
    weight = cell.learned("weight_hh")
    for block in () if weight.is_meta else weight.chunk(len(cell.recurrent)):
        for _ in range(_DRAWS):
            nn.init.uniform_(block, -1, 1)
            block *= torch.rand_like(block) < connectivity
            drawn = initializers.spectral_radius(block)
            if drawn > 1e-6:
                block *= radius / drawn
                break
        else:
            raise ConfigError(
                f"reservoir: {_DRAWS} matrices drawn for {cell._name} have no eigenvalue but 0, "
                f"expected one to scale to {radius}.\n"
                f"  connectivity is {connectivity} for {counted(cell.hidden_size, 'unit')}; raise "
                f"it, until weights that are not 0 close a loop."
            )


_DRAWS = 100
"""How often to draw: of 4 units at a connectivity of 0.1, two matrices of three have no loop."""
