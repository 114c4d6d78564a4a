"""Recurrences for inputs with missing values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.continuous import TimedCell
from seqnets.typing import State


class GRUDCell(TimedCell):
    r"""GRU of values that may be missing: they fade towards their mean, and the state with them.

    A value that is missing is NaN. The cell finds the paper's mask :math:`m_t` from the values, 1
    where there is one and 0 where it is missing, and the time :math:`\delta_t` since each value was
    last there:

    .. math::
        \delta_t &= \Delta t + (1 - m_{t-1}) \odot \delta_{t-1} \\
        \hat x_t &= m_t \odot x_t + (1 - m_t) \odot
            e^{-\max(0,\, w_\gamma \odot \delta_t + b_\gamma)} \odot x'_{t-1} \\
        x'_t &= m_t \odot x_t + (1 - m_t) \odot x'_{t-1} \\
        \hat h_{t-1} &= e^{-\max(0,\, W_\gamma \delta_t + d_\gamma)} \odot h_{t-1} \\
        r_t &= \sigma(W_r \hat x_t + V_r m_t + b_r + U_r \hat h_{t-1} + d_r) \\
        z_t &= \sigma(W_z \hat x_t + V_z m_t + b_z + U_z \hat h_{t-1} + d_z) \\
        n_t &= \tanh(W_n \hat x_t + V_n m_t + b_n + U_n (r_t \odot \hat h_{t-1}) + d_n) \\
        h_t &= (1 - z_t) \odot \hat h_{t-1} + z_t \odot n_t

    As in the paper, for inputs with a mean of 0, such as standardised ones: there the last value
    fades towards the mean of its variable. Before a variable is first seen it counts as 0, and the
    time of the first step, 0 in the paper, counts as any other. :math:`w_\gamma` starts uniform in
    [0, 1).

    State: ``(h, x, d)``: (B, H), the last values seen, :math:`x'_t`, and for how long they have
    been missing, :math:`(1 - m_t) \odot \delta_t`, (B, I) each. Output: ``h``.

    Attributes:
        weight_ih: W and V side by side, (3*H, 2*I).
        w_gamma: :math:`w_\gamma`, (I,).
        b_gamma: :math:`b_\gamma`, (I,), or None.
        weight_gamma: :math:`W_\gamma`, (H, I).
        bias_gamma: :math:`d_\gamma`, (H,), or None.

    Args:
        input_size: Features of the input; with ``timed``, the time among them, which is none of I.
        hidden_size: Units, H.
        timed: Whether the last feature of the input is the time elapsed since the step before,
            :math:`\Delta t`, which is never missing. Else it is 1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``timed``, and there is no feature beside the time.

    References:
        Che et al., 2018, "Recurrent Neural Networks for Multivariate Time Series with Missing
        Values", Scientific Reports 8, arXiv:1606.01865.
    """

    gates = ("r", "z", "n")
    states = ("h", "x", "d")
    clocks = ("d",)
    keeping = ("-z",)
    projects_within = True
    w_gamma: Tensor
    b_gamma: Tensor | None
    weight_gamma: Tensor
    bias_gamma: Tensor | None

    @property
    def variables(self) -> int:
        """Features that may be missing, I."""
        return self.input_size - self.timed

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """H for ``h``, I for the others."""
        return self.hidden_size, self.variables, self.variables

    def add_parameters(self, parameter: Any) -> None:
        """The weights of values and mask, and the rates."""
        H, I = self.hidden_size, self.variables
        self.weight_ih = parameter(3 * H, 2 * I)
        self.w_gamma, self.weight_gamma = parameter(I), parameter(H, I)
        biased = self.bias_ih is not None
        self.register_parameter("b_gamma", parameter(I) if biased else None)
        self.register_parameter("bias_gamma", parameter(H) if biased else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and rates of which none starts without a gradient."""
        super().reset_parameters()
        self.learned("w_gamma").uniform_(0, 1)
        initializers.xavier_(self.learned("weight_gamma"), 1)

    def project(self, x: Tensor) -> Tensor:
        """The values, 0 where they are missing, the mask, and the time elapsed."""
        I = self.variables
        elapsed = [x[..., I:]] if self.timed else []  # a part of no columns could not be traced
        x = x[..., :I]
        missing = x.isnan()
        values = torch.where(missing, torch.zeros_like(x), x)
        return torch.cat([values, (~missing).to(x.dtype), *elapsed], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        h, last, d = state
        I = self.variables
        seen, mask = wx[..., :I], wx[..., I : 2 * I]
        d = d + (wx[..., 2 * I :] if self.timed else 1)
        missing = 1 - mask
        rate = self.w_gamma * d if self.b_gamma is None else self.w_gamma * d + self.b_gamma
        x = seen + missing * torch.exp(-torch.relu(rate)) * last
        h = h * torch.exp(-torch.relu(F.linear(d, self.weight_gamma, self.bias_gamma)))
        w = self.split(self.product(torch.cat([x, mask], -1), self.weight_ih, self.bias_ih))
        u_r, u_z = self.recur(h, "r", "z")
        r, z = self.gate(w.r + u_r), self.gate(w.z + u_z)
        (u_n,) = self.recur(r * h, "n")
        h = h + z * (self.candidate(w.n + u_n) - h)
        return h, seen + missing * last, missing * d
