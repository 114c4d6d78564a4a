"""Gated recurrent units: both orders of the reset gate, and cells with fewer or other gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.gated import GatedCell
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


class MGUCell(GatedCell):
    r"""Minimal gated unit: one gate decides what to forget and what to write.

    .. math::
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f) \\
        n_t &= \tanh(W_n x_t + b_n + f_t \odot (U_n h_{t-1} + d_n)) \\
        h_t &= (1 - f_t) \odot h_{t-1} + f_t \odot n_t

    Differs from the paper in one place: the gate multiplies :math:`U_n h_{t-1}`, not
    :math:`h_{t-1}`, so that both recurrent products are one.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Zhou et al., 2016, "Minimal Gated Unit for Recurrent Neural Networks", arXiv:1603.09420.
    """

    gates = ("f", "n")
    keeping = ("-f",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        f = self.gate(wx.f + uh.f)
        n = self.candidate(wx.n + f * uh.n)
        return (h + f * (n - h),)


class UGRNNCell(GatedCell):
    r"""Update-gate network: an Elman network with one gate, which keeps what was.

    .. math::
        g_t &= \sigma(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= \tanh(W_c x_t + b_c + U_c h_{t-1} + d_c) \\
        h_t &= g_t \odot h_{t-1} + (1 - g_t) \odot c_t

    As in the paper, which leaves open whether :math:`c` squashes by tanh or ReLU.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Collins et al., 2017, "Capacity and Trainability in Recurrent Neural Networks",
        arXiv:1611.09913.
    """

    gates = ("g", "c")
    keeping = ("g",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        g = self.gate(wx.g + uh.g)
        c = self.candidate(wx.c + uh.c)
        return (c + g * (h - c),)


class LightGRUCell(UGRNNCell):
    r"""Light GRU: no reset gate, and a candidate that is not bounded.

    .. math::
        g_t &= \sigma(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= \mathrm{ReLU}(W_c x_t + b_c + U_c h_{t-1} + d_c) \\
        h_t &= g_t \odot h_{t-1} + (1 - g_t) \odot c_t

    Differs from the paper in one place: there :math:`W x_t` is batch-normalised, here it is not;
    :class:`LayerNorm` around the cell keeps the candidate within bounds. The paper's letters are
    :math:`z` for :math:`g` and :math:`\tilde h` for :math:`c`.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Ravanelli et al., 2018, "Light Gated Recurrent Units for Speech Recognition",
        arXiv:1803.10225.
    """

    def candidate(self, a: Tensor) -> Tensor:
        """ReLU."""
        return torch.relu(a)


class _MutatedCell(GatedCell):
    """What the MUTs share: how ``r`` and ``z`` make the new state, and the input in the step."""

    keeping = ("-z",)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate, then the input itself where it stands in the equation."""
        wx = super().project(x)
        return torch.cat([wx, x], -1) if self.square else wx

    def mutate(self, h: Tensor, z: Tensor, r: Tensor, n: Tensor) -> State:
        """The state after ``h``, from what the gates squash and the candidate's input."""
        (u_n,) = self.recur(self.gate(r) * h, "n")
        return (h + self.gate(z) * (self.candidate(n + u_n) - h),)


class MUT1Cell(_MutatedCell):
    r"""MUT1, the first of three architectures that a search over ten thousand found.

    .. math::
        z_t &= \sigma(W_z x_t + b_z) \\
        r_t &= \sigma(W_r x_t + b_r + U_r h_{t-1} + d_r) \\
        h_t &= z_t \odot \tanh(\tanh(x_t) + U_n (r_t \odot h_{t-1}) + d_n)
               + (1 - z_t) \odot h_{t-1}

    As in the paper: :math:`\tanh(x_t)` is of the input itself, so that I must be H, and
    :math:`z` weighs the new value.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Jozefowicz et al., 2015, "An Empirical Exploration of Recurrent Network Architectures",
        ICML.
    """

    gates = ("z", "r", "n")
    inputs = ("z", "r")
    recurrent = ("r", "n")
    square = True

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        (h,) = state
        w_z, w_r, x = wx.chunk(3, -1)
        (u_r,) = self.recur(h, "r")
        return self.mutate(h, z=w_z, r=w_r + u_r, n=torch.tanh(x))


class MUT2Cell(_MutatedCell):
    r"""MUT2, the second of that search: its reset gate sees the input itself.

    .. math::
        z_t &= \sigma(W_z x_t + b_z + U_z h_{t-1} + d_z) \\
        r_t &= \sigma(x_t + U_r h_{t-1} + d_r) \\
        h_t &= z_t \odot \tanh(W_n x_t + b_n + U_n (r_t \odot h_{t-1}) + d_n)
               + (1 - z_t) \odot h_{t-1}

    As in the paper: :math:`x_t` in :math:`r` has no weights, so that I must be H.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Jozefowicz et al., 2015, "An Empirical Exploration of Recurrent Network Architectures",
        ICML.
    """

    gates = ("z", "r", "n")
    inputs = ("z", "n")
    square = True

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        (h,) = state
        w_z, w_n, x = wx.chunk(3, -1)
        u_z, u_r = self.recur(h, "z", "r")
        return self.mutate(h, z=w_z + u_z, r=x + u_r, n=w_n)


class MUT3Cell(_MutatedCell):
    r"""MUT3, the third of that search: its update gate sees the output squashed.

    .. math::
        z_t &= \sigma(W_z x_t + b_z + U_z \tanh(h_{t-1}) + d_z) \\
        r_t &= \sigma(W_r x_t + b_r + U_r h_{t-1} + d_r) \\
        h_t &= z_t \odot \tanh(W_n x_t + b_n + U_n (r_t \odot h_{t-1}) + d_n)
               + (1 - z_t) \odot h_{t-1}

    As in the paper.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Jozefowicz et al., 2015, "An Empirical Exploration of Recurrent Network Architectures",
        ICML.
    """

    gates = ("z", "r", "n")

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        (h,) = state
        w = self.split(wx)
        (u_z,) = self.recur(torch.tanh(h), "z")
        (u_r,) = self.recur(h, "r")
        return self.mutate(h, z=w.z + u_z, r=w.r + u_r, n=w.n)
