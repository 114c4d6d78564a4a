"""Memories that store a quantity and lose none of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.errors import ConfigError
from seqnets.typing import State


class MassConservingLSTMCell(GatedCell):
    r"""Mass-conserving LSTM: what enters is stored, moved or let out, and none of it is lost.

    .. math::
        p_t &= c_{t-1} / \sum_k |c_{t-1,k}| \\
        o_t &= \sigma(W_o a_t + b_o + U_o p_t + d_o) \\
        i_{t,j} &= \mathrm{softmax}(W_{i,j} a_t + b_{i,j} + U_{i,j} p_t) \\
        R_{t,k} &= \mathrm{softmax}(W_{R,k} a_t + b_{R,k} + U_{R,k} p_t) \\
        m_t &= \sum_j i_{t,j}\, x_{t,j} + \sum_k R_{t,k}\, c_{t-1,k} \\
        h_t &= o_t \odot m_t \\
        c_t &= m_t - h_t

    :math:`x_t` are the masses among the features, such as rain, and :math:`a_t` the others, which
    say where the masses go: mass j is spread over the units by :math:`i_{t,j}`, and what unit k
    holds by :math:`R_{t,k}`. What is in all units grows by what enters, and shrinks by what is
    output. Where all units store nothing, or at most :math:`10^{-20}` together, p is c. Masses are
    not to be standardised, and dropout of inputs, zoneout and a mogrifier do not conserve them.

    As in the paper, which has no d; it starts at zero. As in its published code, :math:`b_R` starts
    as the identity matrix, and :math:`b_o` at -3. The paper's model of rivers makes i and R by
    other functions, and sees x in a.

    State: ``(h, c)``, what is let out and what is stored, (B, H) each; h is not read back. Output:
    ``h``.

    Attributes:
        weight_ih: :math:`W_o`, (H, I - M).
        weight_hh: :math:`U_o`, (H, H).
        spread_ih: :math:`W_i`, one block of rows for each mass, then :math:`W_R`, one for each
            unit, ((M + H)*H, I - M).
        spread_hh: :math:`U_i` and :math:`U_R`, likewise, ((M + H)*H, H).
        spread_bias: :math:`b_i` and :math:`b_R`, ((M + H)*H,), or None.

    Args:
        input_size: Features of the input, I; the masses are the last of them.
        hidden_size: Units, H.
        mass_size: How many features are masses, M, at least 1 and below I.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``mass_size`` is below 1, or there is no feature beside the masses.

    References:
        Hoedt et al., 2021, "MC-LSTM: Mass-Conserving LSTM", arXiv:2101.05186.
    """

    gates = ("o",)
    states = ("h", "c")
    output_only = True
    keeping = ("-o",)
    spread_ih: Tensor
    spread_hh: Tensor
    spread_bias: Tensor | None

    def __init__(
        self, input_size: int, hidden_size: int, *, mass_size: int = 1, **options: Any
    ) -> None:
        self.mass_size = check_size(self, "mass_size", mass_size)  # read by super().__init__
        if check_size(self, "input_size", input_size) <= mass_size:
            raise ConfigError(
                f"{self._name}: input_size is {input_size} with mass_size={mass_size}, expected at "
                f"least {mass_size + 1}.\n"
                f"  The last features are masses, and there has to be another, which says where "
                f"they go."
            )
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """What spreads masses, and the output gate's weight, for the features beside them."""
        H, others = self.hidden_size, self.input_size - self.mass_size
        rows = (self.mass_size + H) * H
        self.weight_ih = parameter(H, others)
        self.spread_ih, self.spread_hh = parameter(rows, others), parameter(rows, H)
        biased = self.bias_ih is not None
        self.register_parameter("spread_bias", parameter(rows) if biased else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, block by block, and the published code's biases."""
        super().reset_parameters()
        H, M = self.hidden_size, self.mass_size
        initializers.xavier_(self.learned("spread_ih"), M + H)
        initializers.orthogonal_(self.learned("spread_hh"), M + H)
        if self.spread_bias is not None:
            self.learned("bias_ih").fill_(-3)
            nn.init.eye_(self.learned("spread_bias")[M * H :].view(H, H))

    def project(self, x: Tensor) -> Tensor:
        """``W a + b`` of the output gate and of what spreads masses, then the masses."""
        a, mass = x[..., : -self.mass_size], x[..., -self.mass_size :]
        return torch.cat(
            [super().project(a), F.linear(a, self.spread_ih, self.spread_bias), mass], -1
        )

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above, where masses that enter and masses in units are spread together."""
        _, c = state
        H, M = self.hidden_size, self.mass_size
        wx, spread, mass = wx.split([H, (M + H) * H, M], -1)
        total = c.abs().sum(-1, keepdim=True)
        p = c / torch.where(total > 1e-20, total, 1)  # gradients are as large as its inverse
        o = self.gate(wx + self.recur(p).o)
        shares = (spread + F.linear(p, self.spread_hh)).unflatten(-1, (M + H, H)).softmax(-1)
        m = (torch.cat([mass, c], -1).unsqueeze(-1) * shares).sum(-2)
        h = o * m
        return h, m - h
