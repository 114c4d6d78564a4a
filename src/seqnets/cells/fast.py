"""FastRNN and FastGRNN: hardly more parameters than an Elman network, and stable training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.gated import GatedCell
from seqnets.typing import State


class FastRNNCell(GatedCell):
    r"""Elman network with a weighted residual connection: two numbers more, and stable training.

    .. math::
        n_t &= \tanh(W x_t + b + U h_{t-1} + d) \\
        h_t &= \sigma(\alpha)\, n_t + \sigma(\beta)\, h_{t-1}

    As in the paper. :math:`\alpha` starts at -3 and :math:`\beta` at 3: a step changes little.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        alpha: (1,).
        beta: (1,).

    References:
        Kusupati et al., 2018, "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated
        Recurrent Neural Network", arXiv:1901.02358.
    """

    gates = ("n",)
    alpha: Tensor
    beta: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The two weights."""
        self.alpha, self.beta = parameter(1), parameter(1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the two weights."""
        super().reset_parameters()
        self.learned("alpha").fill_(-3.0)
        self.learned("beta").fill_(3.0)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        n = self.candidate(wx.n + uh.n)
        return (torch.sigmoid(self.alpha) * n + torch.sigmoid(self.beta) * h,)


class FastGRNNCell(GatedCell):
    r"""Gate and candidate by the same matrices: a gated cell as small as an ungated one.

    .. math::
        a_t &= W x_t + b + U h_{t-1} + d \\
        z_t &= \sigma(a_t + b_z) \\
        h_t &= (\sigma(\zeta)\,(1 - z_t) + \sigma(\nu)) \odot \tanh(a_t) + z_t \odot h_{t-1}

    As in the paper, except that the gate's bias adds to the candidate's. The paper's matrices of
    low rank, and its sparse ones, are not here. :math:`\zeta` starts at 1 and :math:`\nu` at -4.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        b_z: (H,), or None.
        zeta: (1,).
        nu: (1,).

    References:
        Kusupati et al., 2018, "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated
        Recurrent Neural Network", arXiv:1901.02358.
    """

    gates = ("n",)
    b_z: Tensor | None
    zeta: Tensor
    nu: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The gate's bias and two weights."""
        biased = self.bias_ih is not None
        self.register_parameter("b_z", parameter(self.hidden_size) if biased else None)
        self.zeta, self.nu = parameter(1), parameter(1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the two weights."""
        super().reset_parameters()
        self.learned("zeta").fill_(1.0)
        self.learned("nu").fill_(-4.0)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        a = wx.n + uh.n
        z = self.gate(a if self.b_z is None else a + self.b_z)
        write = torch.sigmoid(self.zeta) * (1 - z) + torch.sigmoid(self.nu)
        return (write * self.candidate(a) + z * h,)
