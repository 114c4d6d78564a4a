"""LSTM with exponential gates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from seqnets.cells.block_diagonal import split_into_heads
from seqnets.cells.checks import check_divides
from seqnets.cells.lstm import LSTMCell
from seqnets.checks import check_choice
from seqnets.typing import State


class SLSTMCell(LSTMCell):
    r"""LSTM that can revise what it has stored: its input gate is not bounded (sLSTM).

    .. math::
        \tilde k_t &= W_k x_t + b_k + U_k h_{t-1} + d_k \quad\text{for } k \text{ in } i, f, g, o \\
        m_t &= \max(\log \hat f_t + m_{t-1}, \tilde i_t), \quad
        \hat f_t = \sigma(\tilde f_t) \text{ or } \exp(\tilde f_t) \\
        i_t &= \exp(\tilde i_t - m_t) \\
        f_t &= \exp(\log \hat f_t + m_{t-1} - m_t) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(\tilde g_t) \\
        n_t &= f_t \odot n_{t-1} + i_t \\
        h_t &= \sigma(\tilde o_t) \odot c_t / n_t

    ``c`` and ``n`` are both the paper's times :math:`\exp(-m_t)`, so that ``h`` is the same and
    nothing overflows. Where nothing is stored yet, :math:`n_{t-1} = 0`, :math:`m_t = \tilde i_t`.
    From then on :math:`n_t \ge 1`; it counts as 1 where a given state has less.
    With several heads the matrices :math:`U` are block-diagonal: units recur within their head.

    As in the paper, where :math:`g` is called z. What its block has around the cell, a
    convolution before and a group norm after, is not part of it.

    State: ``(h, c, n, m)``, (B, H) each. Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H. With more than one ``weight_hh`` is computed, from the
            blocks one below the other: ``parametrizations.weight_hh.original``, (4H, H/N).
        forget: What opens the forget gate: "sigmoid" or "exp".
        options: ``forget_bias``, ``bias``, ``device`` and ``dtype``, as for every
            :class:`LSTMCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or ``forget`` is neither.

    References:
        Beck et al., 2024, "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517.
    """

    states = ("h", "c", "n", "m")
    projects = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_heads: int = 1,
        forget: str = "sigmoid",
        **options: Any,
    ) -> None:
        check_divides(self, "num_heads", num_heads, hidden_size=hidden_size)
        check_choice(self._name, ("sigmoid", "exp"), forget=forget)
        self.num_heads, self.forget = num_heads, forget
        super().__init__(input_size, hidden_size, **options)
        if num_heads > 1:
            split_into_heads(self, num_heads)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c, n, m = state
        log_i = wx.i + uh.i
        log_f = wx.f + uh.f if self.forget == "exp" else F.logsigmoid(wx.f + uh.f)
        kept = torch.where(n == 0, log_i, log_f + m)
        m = torch.maximum(kept, log_i)
        i, f = torch.exp(log_i - m), torch.exp(kept - m)
        c = f * c + i * self.candidate(wx.g + uh.g)
        n = f * n + i
        return self.gate(wx.o + uh.o) * c / n.clamp(min=1), c, n, m
