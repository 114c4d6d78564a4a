"""LSTM and GRU whose gates see nothing but the input, so that they run in parallel over time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.cells.gated import GatedCell
from seqnets.typing import State


class _MinimalCell(GatedCell):
    """What the minimal cells share: a candidate that keeps the memory positive."""

    def candidate(self, a: Tensor) -> Tensor:
        """The paper's g."""
        return torch.where(a >= 0, a + 0.5, torch.sigmoid(a))


class MinGRUCell(_MinimalCell):
    r"""GRU whose gate and candidate see nothing but the input.

    .. math::
        z_t &= \sigma(W_z x_t + b_z) \\
        \tilde h_t &= g(W_h x_t + b_h), \qquad
        g(a) = a + 0.5 \text{ for } a \ge 0, \text{ else } \sigma(a) \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot \tilde h_t

    As in the paper's form in log-space, whose :math:`g` keeps the memory positive, except that the
    state before the first step is :math:`h_0` itself. The paper takes :math:`g(h_0)`, with which
    two halves of a sequence do not give what the whole gives.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Feng et al., 2024, "Were RNNs All We Needed?", arXiv:2410.01201.
    """

    gates = ("z", "h")
    recurrent = ()
    keeping = ("-z",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        z = self.gate(wx.z)
        return (h + z * (self.candidate(wx.h) - h),)


class MinLSTMCell(_MinimalCell):
    r"""LSTM whose gates and candidate see nothing but the input, and whose gates add up to one.

    .. math::
        f'_t &= \frac{f_t}{f_t + i_t}, \quad i'_t = \frac{i_t}{f_t + i_t}, \qquad
        f_t = \sigma(W_f x_t + b_f), \; i_t = \sigma(W_i x_t + b_i) \\
        \tilde h_t &= g(W_h x_t + b_h), \qquad
        g(a) = a + 0.5 \text{ for } a \ge 0, \text{ else } \sigma(a) \\
        h_t &= f'_t \odot h_{t-1} + i'_t \odot \tilde h_t

    As in the paper's form in log-space, with :math:`f' = \sigma(\log f - \log i)`, which is
    not 0/0 where both gates are shut; but the state before the first step is :math:`h_0`, as in
    :class:`MinGRUCell`.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Feng et al., 2024, "Were RNNs All We Needed?", arXiv:2410.01201.
    """

    gates = ("f", "i", "h")
    recurrent = ()
    keeping = ("f", "-i")

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        f = self.gate(F.logsigmoid(wx.f) - F.logsigmoid(wx.i))
        n = self.candidate(wx.h)
        return (n + f * (h - n),)
