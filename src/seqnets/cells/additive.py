"""Gated cells that write values of the input alone: a memory is a weighted sum of inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.cells.lstm import MemoryCell
from seqnets.typing import State


class RANCell(MemoryCell):
    r"""Recurrent additive network: an LSTM whose candidate is a linear map of the input.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot (W_g x_t + b_g) \\
        h_t &= \tanh(c_t)

    As in the paper, but for :math:`b_g`, which starts at zero here. The paper also
    outputs the memory as it is: ``Activations(cell, squash="identity")``.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Lee et al., 2017, "Recurrent Additive Networks", arXiv:1705.07393.
    """

    gates = ("i", "f", "g")
    recurrent = ("i", "f")
    keeping = ("f", "-i")

    def candidate(self, a: Tensor) -> Tensor:
        """The input's product as it is."""
        return a

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        i = self.gate(wx.i + uh.i)
        f = self.gate(wx.f + uh.f)
        c = f * c + i * self.candidate(wx.g)
        return self.squash(c), c


class ATRCell(GatedCell):
    r"""Addition-subtraction twin-gated network: two gates from one product of each kind.

    .. math::
        p_t &= W x_t + b, \qquad q_t = U h_{t-1} + d \\
        i_t &= \sigma(p_t + q_t), \qquad f_t = \sigma(p_t - q_t) \\
        h_t &= i_t \odot p_t + f_t \odot h_{t-1}

    As in the paper.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Zhang et al., 2018, "Simplifying Neural Machine Translation with Addition-Subtraction
        Twin-Gated Recurrent Networks", arXiv:1810.12546.
    """

    gates = ("p", "q")
    inputs = ("p",)
    recurrent = ("q",)

    def candidate(self, a: Tensor) -> Tensor:
        """The input's product as it is."""
        return a

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        i = self.gate(wx.p + uh.q)
        f = self.gate(wx.p - uh.q)
        return (i * self.candidate(wx.p) + f * h,)


class CFNCell(GatedCell):
    r"""Chaos-free network: without input, every unit fades to zero, whatever the weights.

    .. math::
        \theta_t &= \sigma(W_\theta x_t + b_\theta + U_\theta h_{t-1} + d_\theta) \\
        \eta_t &= \sigma(W_\eta x_t + b_\eta + U_\eta h_{t-1} + d_\eta) \\
        h_t &= \theta_t \odot \tanh(h_{t-1}) + \eta_t \odot \tanh(W_n x_t + b_n)

    As in the paper, but for :math:`b_n`, which starts at zero here. :math:`b_\theta` starts at 1
    and :math:`b_\eta` at -1: it begins by remembering.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Laurent & von Brecht, 2017, "A recurrent neural network without chaos", arXiv:1612.06212.
    """

    gates = ("theta", "eta", "n")
    recurrent = ("theta", "eta")
    keeping = ("theta", "-eta")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, then the gates' biases."""
        super().reset_parameters()
        if self.bias_ih is not None:
            bias = self.split(self.learned("bias_ih"))
            bias.theta.fill_(1.0)
            bias.eta.fill_(-1.0)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        theta = self.gate(wx.theta + uh.theta)
        eta = self.gate(wx.eta + uh.eta)
        return (theta * self.squash(h) + eta * self.candidate(wx.n),)


class MinimalRNNCell(GatedCell):
    r"""Minimal network: the input is mapped to where the memory lives, and one gate mixes both.

    .. math::
        z_t &= \tanh(W x_t + b) \\
        u_t &= \sigma(U h_{t-1} + d + V z_t) \\
        h_t &= u_t \odot h_{t-1} + (1 - u_t) \odot z_t

    As in the paper, which allows any network in the place of the first line.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        weight_z: V, (H, H).

    References:
        Chen, 2017, "MinimalRNN: Toward More Interpretable and Trainable Recurrent Neural
        Networks", arXiv:1711.06788.
    """

    gates = ("z", "u")
    inputs = ("z",)
    recurrent = ("u",)
    weight_z: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The gate's matrix for the mapped input."""
        self.weight_z = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for the gate's further matrix."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_z"), 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        z = self.candidate(wx.z)
        u = self.gate(uh.u + F.linear(z, self.weight_z))
        return (z + u * (h - z),)


class LightRUCell(GatedCell):
    r"""Light recurrent unit: one gate writes a value of the input over the memory.

    .. math::
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f) \\
        n_t &= \tanh(W_n x_t + b_n) \\
        h_t &= (1 - f_t) \odot h_{t-1} + f_t \odot n_t

    As in the paper, but for :math:`b_n`, which starts at zero here. An open gate f forgets.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Ye et al., 2024, "Light Recurrent Unit: Towards an Interpretable Recurrent Neural Network
        for Modeling Long-Range Dependency", Electronics 13(16), 3204.
    """

    gates = ("f", "n")
    recurrent = ("f",)
    keeping = ("-f",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        f = self.gate(wx.f + uh.f)
        n = self.candidate(wx.n)
        return (h + f * (n - h),)


class STARCell(GatedCell):
    r"""Stackable recurrent unit: gradients that keep their size through many layers.

    .. math::
        k_t &= \sigma(W_k x_t + b_k + U_k h_{t-1} + d_k) \\
        z_t &= \tanh(W_z x_t + b_z) \\
        h_t &= \tanh((1 - k_t) \odot h_{t-1} + k_t \odot z_t)

    As in the paper, which also draws the input's weights orthogonal, and the gate's bias by
    :func:`chrono`: ``chrono(initialize(cell, weight_ih="orthogonal"), max_steps)``. The authors'
    code writes with :math:`\sigma(\tilde k + 1)` and keeps with :math:`1 - \sigma(\tilde k)`.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Turkoglu et al., 2021, "Gating Revisited: Deep Multi-layer RNNs That Can Be Trained",
        arXiv:1911.11033.
    """

    gates = ("k", "z")
    recurrent = ("k",)
    keeping = ("-k",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        k = self.gate(wx.k + uh.k)
        z = self.candidate(wx.z)
        return (self.squash(h + k * (z - h)),)
