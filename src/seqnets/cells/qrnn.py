"""Quasi-recurrent networks: gates by a convolution over time, and three ways of pooling."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.typing import State


class QRNNCell(GatedCell):
    r"""Quasi-recurrent network: gates by a convolution over two inputs, and pooling over time.

    .. math::
        z_t &= \tanh(W_z x_t + b_z + V_z x_{t-1}) \\
        f_t &= \sigma(W_f x_t + b_f + V_f x_{t-1}) \\
        o_t &= \sigma(W_o x_t + b_o + V_o x_{t-1}) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot z_t \\
        h_t &= o_t \odot c_t

    As in the paper: fo-pooling, after a convolution of width 2 that begins with zeros. The last
    products :math:`V x` are parts of the state. They count as clocks: options leave them as they
    are.

    State: ``(h, c, v_z, v_f, v_o)``, (B, H) each; h is not read back. Output: ``h``.

    Attributes:
        weight_before: V, one block of rows a gate, (G*H, I).

    References:
        Bradbury et al., 2017, "Quasi-Recurrent Neural Networks", arXiv:1611.01576.
    """

    gates: ClassVar[tuple[str, ...]] = ("z", "f", "o")
    recurrent = ()
    states: tuple[str, ...] = ("h", "c", "v_z", "v_f", "v_o")
    output_only = True
    clocks: tuple[str, ...] = ("v_z", "v_f", "v_o")
    keeping: ClassVar[tuple[str, ...]] = ("f",)
    weight_before: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The weights of the input before."""
        self.weight_before = parameter(*self.weight_ih.shape)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for the weights of the input before."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_before"), len(self.inputs))

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate, then V x, which the next step needs."""
        return torch.cat([super().project(x), F.linear(x, self.weight_before)], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """The pooling, of this input's products and those of the input before."""
        n = len(self.inputs)
        now, after = (self.split(half) for half in wx.chunk(2, -1))
        before = self._input_gates(*state[-n:])
        return *self.update(now, before, state[:-n]), *after

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above; ``uh`` are the products of the input before."""
        _, c = state
        z, f = self.candidate(wx.z + uh.z), self.gate(wx.f + uh.f)
        c = z + f * (c - z)
        return self.gate(wx.o + uh.o) * c, c


class FPoolQRNNCell(QRNNCell):
    r"""Quasi-recurrent network with f-pooling: the memory is the output.

    .. math::
        z_t &= \tanh(W_z x_t + b_z + V_z x_{t-1}) \\
        f_t &= \sigma(W_f x_t + b_f + V_f x_{t-1}) \\
        h_t &= f_t \odot h_{t-1} + (1 - f_t) \odot z_t

    As in the paper; the rest as in :class:`QRNNCell`.

    State: ``(h, v_z, v_f)``, (B, H) each. Output: ``h``.

    References:
        Bradbury et al., 2017, "Quasi-Recurrent Neural Networks", arXiv:1611.01576.
    """

    gates = ("z", "f")
    recurrent = ()
    states = ("h", "v_z", "v_f")
    output_only = False
    clocks = ("v_z", "v_f")

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        z, f = self.candidate(wx.z + uh.z), self.gate(wx.f + uh.f)
        return (z + f * (h - z),)


class IFOPoolQRNNCell(QRNNCell):
    r"""Quasi-recurrent network with ifo-pooling: what is written has a gate of its own.

    .. math::
        z_t &= \tanh(W_z x_t + b_z + V_z x_{t-1}) \\
        k_t &= \sigma(W_k x_t + b_k + V_k x_{t-1}) \quad\text{for } k \text{ in } f, o, i \\
        c_t &= f_t \odot c_{t-1} + i_t \odot z_t \\
        h_t &= o_t \odot c_t

    As in the paper; the rest as in :class:`QRNNCell`.

    State: ``(h, c, v_z, v_f, v_o, v_i)``, (B, H) each; h is not read back. Output: ``h``.

    References:
        Bradbury et al., 2017, "Quasi-Recurrent Neural Networks", arXiv:1611.01576.
    """

    gates = ("z", "f", "o", "i")
    recurrent = ()
    states = ("h", "c", "v_z", "v_f", "v_o", "v_i")
    clocks = ("v_z", "v_f", "v_o", "v_i")
    keeping = ("f", "-i")

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        z = self.candidate(wx.z + uh.z)
        f, o, i = (self.gate(a) for a in (wx.f + uh.f, wx.o + uh.o, wx.i + uh.i))
        c = f * c + i * z
        return o * c, c
