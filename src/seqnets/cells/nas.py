"""A cell that a search found, rather than a person."""

from __future__ import annotations

from typing import Any

import torch

from seqnets.cells.lstm import MemoryCell
from seqnets.typing import State


class NASCell(MemoryCell):
    r"""The cell that a controller, trained by reinforcement, composed for language models.

    .. math::
        a^k_t &= W_k x_t + b_k, \qquad v^k_t = U_k h_{t-1} + d_k
                 \qquad \text{for } k \text{ in } 0 \ldots 7 \\
        e_t &= \tanh(\sigma(a^0_t + v^0_t) \odot \mathrm{ReLU}(a^1_t + v^1_t)) \\
        m_t &= \tanh(\sigma(a^2_t + v^2_t) + \mathrm{ReLU}(a^3_t \odot v^3_t)) \\
        p_t &= \tanh(\tanh(a^4_t + v^4_t) \odot \sigma(a^5_t + v^5_t)) \\
        q_t &= \sigma(\tanh(a^6_t + v^6_t) + \sigma(a^7_t + v^7_t)) \\
        c_t &= \tanh(e_t + c_{t-1}) \odot m_t \\
        h_t &= \tanh(c_t \odot \tanh(p_t + q_t))

    As the paper draws it, and as TensorFlow's cell of this name computes it.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Zoph & Le, 2017, "Neural Architecture Search with Reinforcement Learning",
        arXiv:1611.01578.
    """

    gates = ("g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7")

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        e = torch.tanh(self.gate(wx.g0 + uh.g0) * torch.relu(wx.g1 + uh.g1))
        m = torch.tanh(self.gate(wx.g2 + uh.g2) + torch.relu(wx.g3 * uh.g3))
        p = torch.tanh(torch.tanh(wx.g4 + uh.g4) * self.gate(wx.g5 + uh.g5))
        q = torch.sigmoid(torch.tanh(wx.g6 + uh.g6) + self.gate(wx.g7 + uh.g7))
        c = torch.tanh(e + c) * m
        return torch.tanh(c * torch.tanh(p + q)), c
