"""Recurrent matrices that stay orthogonal: what they carry neither grows nor fades."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.base import Cell
from seqnets.cells.computed import ComputedCell, can_be_set, compute
from seqnets.cells.gated import GatedCell
from seqnets.cells.redrawing import register_initializer
from seqnets.cells.wrapper import gated
from seqnets.checks import check_choice
from seqnets.errors import ConfigError, counted
from seqnets.typing import State


class ExpRNNCell(ComputedCell):
    r"""Elman network whose recurrent matrix is a rotation, by the exponential map.

    .. math::
        h_t &= \phi(W x_t + b + e^{A - A^\top} h_{t-1} + d) \\
        \phi(a) &= \mathrm{sign}(a) \odot \mathrm{ReLU}(|a| + m)
        \quad\text{(modReLU), or } \phi = \tanh

    :math:`A` is strictly lower triangular: all the rotations of H dimensions, and nothing else,
    are :math:`e^{A - A^\top}`. It starts with rotations of pairs of units, by angles uniform in
    :math:`(-\pi, \pi)`, and :math:`m` at zero, where the network is linear.

    As in the paper, which has no biases; of its two initialisations, this is the one of Henaff et
    al.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        threshold: m, (H,); there only with modReLU.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        nonlinearity: "modrelu" or "tanh".
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: The nonlinearity is neither.

    References:
        Lezcano-Casado & Martínez-Rubio, 2019, "Cheap Orthogonal Constraints in Neural Networks: A
        Simple Parametrization of the Orthogonal and Unitary Group", arXiv:1901.08428;
        Arjovsky et al., 2016, "Unitary Evolution Recurrent Neural Networks", arXiv:1511.06464
        (modReLU).
    """

    gates = ("h",)
    threshold: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, nonlinearity: str = "modrelu", **options: Any
    ) -> None:
        check_choice(self._name, ("modrelu", "tanh"), nonlinearity=nonlinearity)
        self.nonlinearity = nonlinearity  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """The threshold of modReLU."""
        if self.nonlinearity == "modrelu":
            self.threshold = parameter(self.hidden_size)

    def parametrization(self) -> nn.Module:
        """The exponential of a skew-symmetric matrix."""
        return _Rotations(1)

    def draw_(self, weight: Tensor) -> None:
        """Rotations of pairs of units."""
        rotate_pairs_(weight, 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        a = wx.h + uh.h
        if self.nonlinearity == "tanh":
            return (self.candidate(a),)
        return (torch.sign(a) * torch.relu(a.abs() + self.threshold),)


def orthogonal(cell: Cell) -> Cell:
    r"""Let each gate's recurrent matrix be a rotation, :math:`e^{A - A^\top}`, in any gated cell.

    This is a parametrization (``torch.nn.utils.parametrize``): the cell keeps its class, its
    kernels and the name of its weight, and learns ``parametrizations.weight_hh.original``, of which
    only the part below the diagonal of each gate's block counts. The matrices are drawn anew, like
    those of :class:`ExpRNNCell`. Where the output is projected, they are (H, P) with orthonormal
    columns.

    Args:
        cell: The recurrence, around a :class:`GatedCell` with recurrent gates.

    Returns:
        The cell itself.

    Raises:
        ConfigError: The cell has no recurrent product by gates, computes its matrix already, as one
            that is orthogonal or obeys :func:`dale`, or has one with fewer rows than columns.

    References:
        Lezcano-Casado & Martínez-Rubio, 2019, "Cheap Orthogonal Constraints in Neural Networks: A
        Simple Parametrization of the Orthogonal and Unitary Group", arXiv:1901.08428.
    """
    inner = gated("orthogonal", cell)
    if isinstance(inner, ComputedCell) or not can_be_set(inner, "weight_hh"):
        raise ConfigError(
            f"orthogonal: {inner._name} computes its weight_hh already, expected one that is "
            f"learned as it is."
        )
    rows, *columns = inner.learned("weight_hh").shape
    if len(columns) != 1 or columns[0] > rows // len(inner.recurrent):
        raise ConfigError(
            f"orthogonal: weight_hh of {inner._name} has shape {(rows, *columns)}, expected at "
            f"least as many rows as columns for each of {counted(len(inner.recurrent), 'gate')}."
        )
    compute(inner, "weight_hh", _Rotations(len(inner.recurrent)))
    _start(inner)
    register_initializer(inner, _start)
    return cell


def rotate_pairs_(weight: Tensor, gates: int) -> Tensor:
    """Fill A of each gate's block, in place: neighbours 2k and 2k + 1 turn by a random angle.

    Args:
        weight: One block of rows a gate, (G*H, H).
        gates: How many blocks.

    References:
        Henaff et al., 2016, "Recurrent Orthogonal Networks and Long-Memory Tasks",
        arXiv:1602.06662.
    """
    nn.init.zeros_(weight)
    for block in weight.chunk(gates):
        block.diagonal(-1)[::2].uniform_(-math.pi, math.pi)
    return weight


@torch.no_grad()
def _start(cell: GatedCell) -> None:
    weight = cell.learned("weight_hh")
    heads = cell.weight_hh.shape[1] // weight.shape[1]  # each in rows of its own
    rotate_pairs_(weight, len(cell.recurrent) * heads)


class _Rotations(nn.Module):
    def __init__(self, gates: int) -> None:
        super().__init__()
        self.gates = gates

    def forward(self, weight: Tensor) -> Tensor:
        blocks = weight.unflatten(0, (self.gates, -1)).tril(-1)
        rows, columns = blocks.shape[1:]
        a = F.pad(blocks, (0, rows - columns))
        precise = torch.promote_types(a.dtype, torch.float32)  # half ones have no exact exponential
        rotations = torch.matrix_exp((a - a.mT).to(precise)).to(a.dtype)
        return rotations[..., :columns].flatten(0, 1)
