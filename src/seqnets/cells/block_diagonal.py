"""Units that recur within their head alone: recurrent matrices in blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.base import Cell
from seqnets.cells.checks import check_divides
from seqnets.cells.computed import compute
from seqnets.cells.gated import GatedCell
from seqnets.cells.redrawing import register_initializer
from seqnets.cells.wrapper import with_square_weights


def block_diagonal(cell: Cell, num_heads: int) -> Cell:
    """Split a gated cell into heads, whose units recur among themselves: block-diagonal matrices.

    Each gate's recurrent matrix keeps a block of H/N rows and columns for each head; all units
    still read the whole input. This is a parametrization (``torch.nn.utils.parametrize``): the cell
    keeps its class, its kernels and the name of its weight, and learns
    ``parametrizations.weight_hh.original``, the blocks one below the other, (G*H, H/N). Blocks are
    drawn anew, orthogonal each. :class:`SLSTMCell` has heads of its own, which are the same.

    Args:
        cell: The recurrence, around a :class:`GatedCell` with recurrent gates.
        num_heads: Heads N, a divisor of H.

    Returns:
        The cell itself.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or the cell has no square recurrent matrix for
            each gate that is learned as it is.

    Example:
        >>> cell = block_diagonal(LSTMCell(8, 64), num_heads=4)

    References:
        Pöppel et al., 2024, "FlashRNN: I/O-Aware Optimization of Traditional RNNs on modern
        hardware", arXiv:2412.07752.
    """
    inner = with_square_weights("block_diagonal", cell)
    check_divides(inner, "num_heads", num_heads, hidden_size=inner.hidden_size)
    split_into_heads(inner, num_heads)
    return cell


def split_into_heads(cell: GatedCell, num_heads: int) -> None:
    """Let a cell compute each gate's recurrent matrix from its blocks, which are drawn anew."""
    compute(cell, "weight_hh", _Blocks(num_heads))
    _start(cell)
    register_initializer(cell, _start)


def heads_of(cell: Cell) -> int:
    """The heads N that a cell's units are split into; 1 if all of them recur together."""
    cell = cell.origin
    if cell._is_parametrised and "weight_hh" in cell.parametrizations:
        for part in cell.parametrizations["weight_hh"]:
            if isinstance(part, _Blocks):
                return part.num_blocks
    return 1


@torch.no_grad()
def _start(cell: GatedCell) -> None:
    weight = cell.learned("weight_hh")
    initializers.orthogonal_(weight, len(weight) // weight.shape[1])


class _Blocks(nn.Module):
    """Matrices of one gate each, (G*H, H), from their N diagonal blocks, (G*H, H/N)."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.num_blocks = num_blocks

    def forward(self, blocks: Tensor) -> Tensor:
        N, D = self.num_blocks, blocks.shape[1]
        same = torch.eye(N, dtype=blocks.dtype, device=blocks.device).view(N, 1, N, 1)
        return (blocks.view(-1, N, D, 1, D) * same).view(-1, N * D)

    def right_inverse(self, weight: Tensor) -> Tensor:
        N = self.num_blocks
        D = weight.shape[1] // N
        return weight.view(-1, N, D, N, D).diagonal(dim1=1, dim2=3).movedim(-1, 1).reshape(-1, D)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_blocks}"
