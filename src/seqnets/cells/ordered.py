"""LSTM with ordered units: what lies higher in a hierarchy is remembered longer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_divides
from seqnets.cells.lstm import MemoryCell
from seqnets.typing import State


class ONLSTMCell(MemoryCell):
    r"""Ordered neurons: two master gates let the lower units forget before the higher ones.

    .. math::
        i_t, f_t, o_t &= \sigma(W x_t + b + U h_{t-1} + d) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        \tilde f_t &= \mathrm{cumax}(V_f x_t + e_f + R_f h_{t-1}), \qquad
        \tilde i_t = 1 - \mathrm{cumax}(V_i x_t + e_i + R_i h_{t-1}) \\
        c_t &= \tilde f_t \odot (f_t \odot \tilde i_t + 1 - \tilde i_t) \odot c_{t-1}
               + \tilde i_t \odot (i_t \odot \tilde f_t + 1 - \tilde f_t) \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    As in the paper: cumax sums a softmax over the units so far, and ``chunk_size`` units next to
    each other share their master gates.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    Attributes:
        weight_xm: :math:`V_f` and :math:`V_i`, (2H/C, I).
        weight_hm: :math:`R_f` and :math:`R_i`, (2H/C, H).
        bias_m: e, (2H/C,), or None.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        chunk_size: Units that share their master gates, C, a divisor of H.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``chunk_size`` is below 1, or H is no multiple of it.
        DtypeError: ``chunk_size`` is no integer.

    References:
        Shen et al., 2019, "Ordered Neurons: Integrating Tree Structures into Recurrent Neural
        Networks", arXiv:1810.09536.
    """

    gates = ("i", "f", "g", "o")
    projects = False
    weight_xm: Tensor
    weight_hm: Tensor
    bias_m: Tensor | None

    def __init__(
        self, input_size: int, hidden_size: int, *, chunk_size: int = 1, **options: Any
    ) -> None:
        check_divides(self, "chunk_size", chunk_size, hidden_size=hidden_size)
        self.chunk_size = chunk_size  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """What the master gates see."""
        super().add_parameters(parameter)
        rows = 2 * (self.hidden_size // self.chunk_size)
        self.weight_xm = parameter(rows, self.input_size)
        self.weight_hm = parameter(rows, self.hidden_size)
        self.register_parameter("bias_m", parameter(rows) if self.bias_ih is not None else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for the master gates."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_xm"), 2)
        initializers.xavier_(self.learned("weight_hm"), 2)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate, then what the master gates see of the input."""
        return torch.cat([super().project(x), F.linear(x, self.weight_xm, self.bias_m)], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        h, c = state
        levels = self.hidden_size // self.chunk_size
        gates, master = wx.split([4 * self.hidden_size, 2 * levels], -1)
        w, u = self.split(gates), self.recur(h)
        i, f, o = self.gate(w.i + u.i), self.gate(w.f + u.f), self.gate(w.o + u.o)
        g = self.candidate(w.g + u.g)
        up, down = (master + F.linear(h, self.weight_hm)).chunk(2, -1)
        master_f, master_i = self._cumax(up), 1 - self._cumax(down)
        forget = master_f * (f * master_i + 1 - master_i)
        write = master_i * (i * master_f + 1 - master_f)
        c = forget * c + write * g
        return o * self.squash(c), c

    def _cumax(self, a: Tensor) -> Tensor:
        so_far = torch.cumsum(F.softmax(a, -1), -1)
        return so_far.repeat_interleave(self.chunk_size, -1)
