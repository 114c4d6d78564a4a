"""Gated recurrent units, in both orders of the reset gate."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from seqnets.cells.base import GatedCell
from seqnets.typing import State


class GRUCell(GatedCell):
    r"""Gated recurrent unit, reset after the product: what torch.nn and cuDNN compute.

    .. math::
        r_t &= \sigma(W_r x_t + b_r + U_r h_{t-1} + d_r) \\
        z_t &= \sigma(W_z x_t + b_z + U_z h_{t-1} + d_z) \\
        n_t &= \tanh(W_n x_t + b_n + r_t \odot (U_n h_{t-1} + d_n)) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Differs from the paper in one place: the reset gate multiplies :math:`U_n h_{t-1}`, not
    :math:`h_{t-1}`, so that all recurrent products are one. :class:`OriginalGRUCell` is the
    paper's.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder for
        Statistical Machine Translation", arXiv:1406.1078.
    """

    gates = ("r", "z", "n")
    keeping = ("z",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        r = self.gate(wx.r + uh.r)
        z = self.gate(wx.z + uh.z)
        n = self.candidate(wx.n + r * uh.n)
        return (n + z * (h - n),)


class OriginalGRUCell(GatedCell):
    r"""Gated recurrent unit as first published: reset before the product.

    .. math::
        r_t &= \sigma(W_r x_t + b_r + U_r h_{t-1} + d_r) \\
        z_t &= \sigma(W_z x_t + b_z + U_z h_{t-1} + d_z) \\
        n_t &= \tanh(W_n x_t + b_n + U_n (r_t \odot h_{t-1}) + d_n) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    As in the paper, which has no biases. Many textbooks swap :math:`z` and :math:`1 - z`.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder for
        Statistical Machine Translation", arXiv:1406.1078.
    """

    gates = ("r", "z", "n")
    keeping = ("z",)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above: two products, the second of what the first one let pass."""
        (h,) = state
        w = self.split(wx)
        u_r, u_z = self.recur(h, "r", "z")
        r = self.gate(w.r + u_r)
        z = self.gate(w.z + u_z)
        (u_n,) = self.recur(r * h, "n")
        n = self.candidate(w.n + u_n)
        return (n + z * (h - n),)
