"""The LSTM with one thing left out or put in: the variants of "LSTM: A Search Space Odyssey".

Vanilla is :class:`PeepholeLSTMCell`, and without peepholes (NP) it is :class:`LSTMCell`. All others
keep the peepholes of the gates they have.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.lstm import (
    CoupledLSTMCell,
    LSTMCell,
    MemoryCell,
    NoForgetLSTMCell,
    PeepholeLSTMCell,
)
from seqnets.typing import State


class _Odyssey(MemoryCell):
    """The vanilla LSTM as far as a variant declares it: a gate that it does not have is open.

    Attributes:
        coupled: Whether :math:`f = 1 - i`.
    """

    coupled: ClassVar[bool] = False

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations of :class:`PeepholeLSTMCell`."""
        c = state[1]
        i = self.opening("i", wx, uh, c)
        f = 1 - i if self.coupled else self.opening("f", wx, uh, c)
        c = f * c + i * self.candidate(wx.g + uh.g)
        o = self.opening("o", wx, uh, c)
        return (o * self.squash(c), c, i, f, o)[: len(self.states)]

    def opening(self, gate: str, wx: Any, uh: Any, c: Tensor) -> Any:
        """How far a gate opens at the sight of the memory."""
        if gate not in self.gates:
            return 1.0
        peephole = getattr(self, f"p_{gate}")
        return self.gate(getattr(wx, gate) + getattr(uh, gate) + peephole * c)


class NIGLSTMCell(_Odyssey, LSTMCell):
    r"""LSTM with no input gate: :math:`i = 1`, all that is proposed is written.

    .. math::
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f \odot c_{t-1}) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o \odot c_t) \\
        h_t &= o_t \odot \tanh(c_t)

    As in the paper.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    gates = ("f", "g", "o")
    keeping = ("f",)
    per_unit = ("p_f", "p_o")


class NFGLSTMCell(_Odyssey, NoForgetLSTMCell):
    r"""LSTM with no forget gate, and with peepholes: :math:`f = 1`, the memory only adds.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i \odot c_{t-1}) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o \odot c_t) \\
        h_t &= o_t \odot \tanh(c_t)

    As in the paper.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    per_unit = ("p_i", "p_o")


class NOGLSTMCell(_Odyssey, LSTMCell):
    r"""LSTM with no output gate: :math:`o = 1`, the memory is always shown.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i \odot c_{t-1}) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f \odot c_{t-1}) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= \tanh(c_t)

    As in the paper.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    gates = ("i", "f", "g")
    per_unit = ("p_i", "p_f")


class NIAFLSTMCell(PeepholeLSTMCell):
    r"""LSTM with no input activation function: the candidate is not squashed.

    .. math::
        g_t = W_g x_t + b_g + U_g h_{t-1} + d_g

    and all else as in :class:`PeepholeLSTMCell`. As in the paper.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    def candidate(self, a: Tensor) -> Tensor:
        """As it is."""
        return a


class NOAFLSTMCell(PeepholeLSTMCell):
    r"""LSTM with no output activation function: the memory is not squashed where it is shown.

    .. math::
        h_t = o_t \odot c_t

    and all else as in :class:`PeepholeLSTMCell`. As in the paper.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    def squash(self, a: Tensor) -> Tensor:
        """As it is."""
        return a


class CIFGLSTMCell(_Odyssey, CoupledLSTMCell):
    r"""LSTM with coupled input and forget gate, and with peepholes: :math:`f = 1 - i`.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i \odot c_{t-1}) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= (1 - i_t) \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o \odot c_t) \\
        h_t &= o_t \odot \tanh(c_t)

    As in the paper. :class:`CoupledLSTMCell` is the same without peepholes.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    per_unit = ("p_i", "p_o")
    coupled = True


class FGRLSTMCell(_Odyssey, PeepholeLSTMCell):
    r"""LSTM with full gate recurrence: each gate also sees where all gates were a step before.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i \odot c_{t-1} + \rho_i) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f \odot c_{t-1} + \rho_f) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o \odot c_t + \rho_o) \\
        h_t &= o_t \odot \tanh(c_t) \\
        \rho_k &= R_{ik} i_{t-1} + R_{fk} f_{t-1} + R_{ok} o_{t-1}
        \quad\text{for } k \text{ in } i, f, o

    As in the paper, whose text leaves open whether the output gate sees the old memory or the new
    one here; the new one, as in the vanilla cell. Before the first step the gates are shut.

    State: ``(h, c, i, f, o)``, (B, H) each. Output: ``h``.

    Attributes:
        weight_i: :math:`R_{ii}, R_{if}, R_{io}` one below the other, (3H, H).
        weight_f: :math:`R_{fi}, R_{ff}, R_{fo}`.
        weight_o: :math:`R_{oi}, R_{of}, R_{oo}`.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    states = ("h", "c", "i", "f", "o")
    projects = False
    weight_i: Tensor
    weight_f: Tensor
    weight_o: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The nine matrices from gate to gate."""
        super().add_parameters(parameter)
        for gate in ("i", "f", "o"):
            setattr(self, f"weight_{gate}", parameter(3 * self.hidden_size, self.hidden_size))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every LSTM, and orthogonal from gate to gate."""
        super().reset_parameters()
        for name in ("weight_i", "weight_f", "weight_o"):
            initializers.orthogonal_(self.learned(name), 3)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, _, i, f, o = state
        sources = ((i, self.weight_i), (f, self.weight_f), (o, self.weight_o))
        products = (F.linear(gate, weight).chunk(3, -1) for gate, weight in sources)
        rho_i, rho_f, rho_o = (sum(parts) for parts in zip(*products, strict=True))
        seen = uh._replace(i=uh.i + rho_i, f=uh.f + rho_f, o=uh.o + rho_o)
        return super().update(wx, seen, state)
