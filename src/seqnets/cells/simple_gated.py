"""Simple gated units: the input says how the old state is gated, and one gate what is kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.typing import State


class SGUCell(GatedCell):
    r"""Simple gated unit: the input enters by products with the old state alone.

    .. math::
        g_t &= \tanh\bigl(U_g ((W_g x_t + b_g) \odot h_{t-1}) + d_g\bigr) \\
        n_t &= \log(1 + e^{g_t \odot h_{t-1}}) \\
        z_t &= \hat\sigma(W_z x_t + b_z + U_z h_{t-1} + d_z), \qquad
        \hat\sigma(a) = \min(\max(0.2\, a + 0.5, 0), 1) \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot n_t

    As in the paper, which has no :math:`d`; they start at zero. What is written is always above 0.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Gao & Glowacka, 2016, "Deep Gate Recurrent Neural Network", arXiv:1604.02910.
    """

    gates = ("g", "z")
    keeping = ("-z",)

    def gate(self, a: Tensor) -> Tensor:
        """The hard sigmoid of a slope of 0.2."""
        return (0.2 * a + 0.5).clamp(0, 1)

    def candidate(self, a: Tensor) -> Tensor:
        """Softplus."""
        return F.softplus(a)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        (h,) = state
        w = self.split(wx)
        g = torch.tanh(self.recur(w.g * h, "g").g)
        z = self.gate(w.z + self.recur(h, "z").z)
        return (h + z * (self.written(g * h) - h),)

    def written(self, gated: Tensor) -> Tensor:
        """What the gate writes, of the gated state."""
        return self.candidate(gated)


class DSGUCell(SGUCell):
    r"""Deep simple gated unit: what is written is one more layer of the gated state.

    .. math::
        g_t &= \tanh\bigl(U_g ((W_g x_t + b_g) \odot h_{t-1}) + d_g\bigr) \\
        n_t &= \sigma\bigl(V (g_t \odot h_{t-1})\bigr) \\
        z_t &= \hat\sigma(W_z x_t + b_z + U_z h_{t-1} + d_z), \qquad
        \hat\sigma(a) = \min(\max(0.2\, a + 0.5, 0), 1) \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot n_t

    As in the paper, which has no :math:`d`; they start at zero.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        weight_n: V, (H, H).

    References:
        Gao & Glowacka, 2016, "Deep Gate Recurrent Neural Network", arXiv:1604.02910.
    """

    weight_n: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The further layer."""
        self.weight_n = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for the further layer."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_n"), 1)

    def candidate(self, a: Tensor) -> Tensor:
        """The logistic function."""
        return torch.sigmoid(a)

    def written(self, gated: Tensor) -> Tensor:
        """The further layer of the gated state."""
        return self.candidate(F.linear(gated, self.weight_n))
