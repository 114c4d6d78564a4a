"""Cells whose units have two stable states, so that they latch what they saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.gated import GatedCell
from seqnets.typing import State


class BRCCell(GatedCell):
    r"""Bistable cell: each unit feeds back on itself alone, and latches where this is above one.

    .. math::
        a_t &= 1 + \tanh(W_a x_t + b_a + w_a \odot h_{t-1}) \\
        c_t &= \sigma(W_c x_t + b_c + w_c \odot h_{t-1}) \\
        h_t &= c_t \odot h_{t-1} + (1 - c_t) \odot \tanh(W_n x_t + b_n + a_t \odot h_{t-1})

    As in the paper, which has no biases. :math:`w` starts at 1, as in its authors' code.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        w_a: (H,).
        w_c: (H,).

    References:
        Vecoven et al., 2021, "A bio-inspired bistable recurrent cell allows for long-lasting
        memory", arXiv:2006.05252.
    """

    gates = ("a", "c", "n")
    recurrent = ()
    keeping = ("c",)
    per_unit = ("w_a", "w_c")
    w_a: Tensor
    w_c: Tensor

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the feedback."""
        super().reset_parameters()
        self.learned("w_a").fill_(1.0)
        self.learned("w_c").fill_(1.0)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        a = 1 + torch.tanh(wx.a + self.w_a * h)
        c = self.gate(wx.c + self.w_c * h)
        n = self.candidate(wx.n + a * h)
        return (n + c * (h - n),)


class NBRCCell(GatedCell):
    r"""Neuromodulated bistable cell: all units say how strongly each feeds back on itself.

    .. math::
        a_t &= 1 + \tanh(W_a x_t + b_a + U_a h_{t-1} + d_a) \\
        c_t &= \sigma(W_c x_t + b_c + U_c h_{t-1} + d_c) \\
        h_t &= c_t \odot h_{t-1} + (1 - c_t) \odot \tanh(W_n x_t + b_n + a_t \odot h_{t-1})

    As in the paper, which has no biases.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Vecoven et al., 2021, "A bio-inspired bistable recurrent cell allows for long-lasting
        memory", arXiv:2006.05252.
    """

    gates = ("a", "c", "n")
    recurrent = ("a", "c")
    keeping = ("c",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        a = 1 + torch.tanh(wx.a + uh.a)
        c = self.gate(wx.c + uh.c)
        n = self.candidate(wx.n + a * h)
        return (n + c * (h - n),)
