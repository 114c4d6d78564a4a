"""Strongly typed networks: no matrix maps a state, so that units mean the same at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.gated import GatedCell
from seqnets.cells.qrnn import QRNNCell
from seqnets.typing import State


class TRNNCell(GatedCell):
    r"""Strongly typed network: a moving average of features, at a pace that the input sets.

    .. math::
        z_t &= W_z x_t + b_z \\
        f_t &= \sigma(W_f x_t + b_f) \\
        h_t &= f_t \odot h_{t-1} + (1 - f_t) \odot z_t

    As in the paper, but for :math:`b_z`, which starts at zero here.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Balduzzi & Ghifary, 2016, "Strongly-Typed Recurrent Neural Networks", arXiv:1602.02218.
    """

    gates = ("z", "f")
    recurrent = ()
    keeping = ("f",)

    def candidate(self, a: Tensor) -> Tensor:
        """The features as they are."""
        return a

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        z, f = self.candidate(wx.z), self.gate(wx.f)
        return (z + f * (h - z),)


class TGRUCell(QRNNCell):
    r"""Strongly typed gated unit: it adds features that a gate of two inputs lets pass.

    .. math::
        z_t &= W_z x_t + b_z + V_z x_{t-1} \\
        f_t &= \sigma(W_f x_t + b_f + V_f x_{t-1}) \\
        o_t &= \tanh(W_o x_t + b_o + V_o x_{t-1}) \\
        h_t &= f_t \odot h_{t-1} + z_t \odot o_t

    As in the paper, which leaves :math:`o`'s nonlinearity open. The last products are parts of the
    state, as in :class:`QRNNCell`.

    State: ``(h, v_z, v_f, v_o)``, (B, H) each. Output: ``h``.

    References:
        Balduzzi & Ghifary, 2016, "Strongly-Typed Recurrent Neural Networks", arXiv:1602.02218.
    """

    states = ("h", "v_z", "v_f", "v_o")
    output_only = False

    def candidate(self, a: Tensor) -> Tensor:
        """The features as they are."""
        return a

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        z, f = self.candidate(wx.z + uh.z), self.gate(wx.f + uh.f)
        return (f * h + z * torch.tanh(wx.o + uh.o),)


class TLSTMCell(QRNNCell):
    r"""Strongly typed LSTM: a moving average of features, and a gate of two inputs to show it.

    .. math::
        z_t &= W_z x_t + b_z + V_z x_{t-1} \\
        f_t &= \sigma(W_f x_t + b_f + V_f x_{t-1}) \\
        o_t &= \tanh(W_o x_t + b_o + V_o x_{t-1}) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot z_t \\
        h_t &= c_t \odot o_t

    As in the paper, which leaves :math:`o`'s nonlinearity open. The last products are parts of the
    state, as in :class:`QRNNCell`.

    State: ``(h, c, v_z, v_f, v_o)``, (B, H) each; h is not read back. Output: ``h``.

    References:
        Balduzzi & Ghifary, 2016, "Strongly-Typed Recurrent Neural Networks", arXiv:1602.02218.
    """

    def candidate(self, a: Tensor) -> Tensor:
        """The features as they are."""
        return a

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        z, f = self.candidate(wx.z + uh.z), self.gate(wx.f + uh.f)
        c = z + f * (c - z)
        return torch.tanh(wx.o + uh.o) * c, c
