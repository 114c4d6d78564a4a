"""Long short-term memory and its variants."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.checks import check_number, is_whole
from seqnets.errors import ConfigError, DtypeError
from seqnets.typing import State


class MemoryCell(GatedCell):
    r"""What the LSTMs share: a memory ``c`` beside the output ``h``, which may be projected.

    With ``proj_size`` P > 0 the output is :math:`V h_t`, (B, P), and it is what recurs.

    State: ``(h, c)``, (B, H) or (B, P), and (B, H). Output: ``h``.

    Attributes:
        projects: Whether the equation leaves room for a projection.
        weight_hr: V, (P, H); there only with a projection.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units of the memory, H.
        proj_size: Features of the output, 0 (no projection) or 1..H-1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``proj_size`` is out of range, or the cell does not project.
        DtypeError: ``proj_size`` is not a whole number.

    References:
        Sak et al., 2014, "Long Short-Term Memory Based Recurrent Neural Network Architectures
        for Large Vocabulary Speech Recognition", arXiv:1402.1128 (the projection).
    """

    states: tuple[str, ...] = ("h", "c")
    projects: ClassVar[bool] = True

    def __init__(
        self, input_size: int, hidden_size: int, *, proj_size: int = 0, **options: Any
    ) -> None:
        check_size(self, "hidden_size", hidden_size)
        if not is_whole(proj_size) or not 0 <= proj_size < hidden_size:
            kind = ConfigError if is_whole(proj_size) else DtypeError
            raise kind(
                f"{self._name}: proj_size is {proj_size!r}, expected 0 (no projection) or a whole "
                f"number above 0 and below hidden_size = {hidden_size}."
            )
        if proj_size and not self.projects:
            raise ConfigError(
                f"{self._name}: proj_size is {proj_size}, expected 0: this cell does not project.\n"
                f"  Put a linear layer after it, or take LSTMCell."
            )
        self.proj_size = proj_size  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of ``h``, and of what else is carried."""
        return (self.proj_size or self.hidden_size, *(self.hidden_size,) * (len(self.states) - 1))

    def add_parameters(self, parameter: Any) -> None:
        """The projection, if there is one."""
        if self.proj_size:
            self.weight_hr = parameter(self.proj_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for the projection."""
        super().reset_parameters()
        if self.proj_size:
            initializers.xavier_(self.learned("weight_hr"), 1)

    def step(self, wx: Tensor, state: State) -> State:
        """One product, :meth:`update`, and the projection."""
        h, *memory = super().step(wx, state)
        return (F.linear(h, self.weight_hr) if self.proj_size else h), *memory


class LSTMCell(MemoryCell):
    r"""Long short-term memory with a forget gate, as torch.nn and cuDNN compute it.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Differs from the paper in one place: :math:`g` and the output squash by :math:`\tanh`, where
    the paper has logistic functions scaled to [-2, 2] and [-1, 1].

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        forget_bias: Where the forget gate's bias starts: above 0 it starts by remembering.
            Without biases it has no effect.
        options: ``proj_size``, ``bias``, ``device`` and ``dtype``, as for every
            :class:`MemoryCell`.

    Raises:
        ConfigError: ``forget_bias`` is no finite number.

    References:
        Gers et al., 2000, "Learning to Forget: Continual Prediction with LSTM", Neural
        Computation 12(10); Jozefowicz et al., 2015, "An Empirical Exploration of Recurrent
        Network Architectures" (forget bias 1).
    """

    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    keeping: ClassVar[tuple[str, ...]] = ("f", "-i")

    def __init__(
        self, input_size: int, hidden_size: int, *, forget_bias: float = 1.0, **options: Any
    ) -> None:
        check_number(self._name, forget_bias=forget_bias)
        self.forget_bias = forget_bias  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every memory cell, then the forget gate's bias."""
        super().reset_parameters()
        if self.bias_ih is not None:
            self.set_forget_bias(self.split(self.learned("bias_ih")))

    def set_forget_bias(self, bias: Any) -> None:
        """Fill the gate that forgets; ``bias`` holds each gate's rows, (H,)."""
        bias.f.fill_(self.forget_bias)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        i = self.gate(wx.i + uh.i)
        f = self.gate(wx.f + uh.f)
        g = self.candidate(wx.g + uh.g)
        o = self.gate(wx.o + uh.o)
        c = f * c + i * g
        return o * self.squash(c), c


class PeepholeLSTMCell(LSTMCell):
    r"""LSTM whose gates see the memory: input and forget gate the old, output gate the new.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i \odot c_{t-1}) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f \odot c_{t-1}) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o \odot c_t) \\
        h_t &= o_t \odot \tanh(c_t)

    As Greff et al. write it: their "vanilla" LSTM. The peepholes start at zero.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Gers & Schmidhuber, 2000, "Recurrent nets that time and count", IJCNN;
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    per_unit: ClassVar[tuple[str, ...]] = ("p_i", "p_f", "p_o")
    p_i: Tensor
    p_f: Tensor
    p_o: Tensor

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        i = self.gate(wx.i + uh.i + self.p_i * c)
        f = self.gate(wx.f + uh.f + self.p_f * c)
        g = self.candidate(wx.g + uh.g)
        c = f * c + i * g
        o = self.gate(wx.o + uh.o + self.p_o * c)
        return o * self.squash(c), c


class ResidualLSTMCell(PeepholeLSTMCell):
    r"""LSTM whose output gate lets the input pass beside the memory: a shortcut in each layer.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + p_i \odot c_{t-1}) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f + p_f \odot c_{t-1}) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + p_o \odot c_t) \\
        h_t &= o_t \odot (V \tanh(c_t) + W_r x_t + b_r)

    As in the paper, but for :math:`b_r`, which starts at zero here. The paper can do without
    :math:`W_r` if I equals H. The peepholes start at zero.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    Attributes:
        weight_m: V, (H, H).

    References:
        Kim et al., 2017, "Residual LSTM: Design of a Deep Recurrent Architecture for Distant Speech
        Recognition", arXiv:1701.03360.
    """

    gates = ("i", "f", "g", "o", "r")
    recurrent = ("i", "f", "g", "o")
    projects = False
    weight_m: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """What the memory is mapped by."""
        super().add_parameters(parameter)
        self.weight_m = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every LSTM, and Xavier for what the memory is mapped by."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_m"), 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        i = self.gate(wx.i + uh.i + self.p_i * c)
        f = self.gate(wx.f + uh.f + self.p_f * c)
        c = f * c + i * self.candidate(wx.g + uh.g)
        o = self.gate(wx.o + uh.o + self.p_o * c)
        return o * (F.linear(self.squash(c), self.weight_m) + wx.r), c


class WMCLSTMCell(LSTMCell):
    r"""LSTM with working memory connections: its gates see all of the memory, squashed.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i + \tanh(V_i c_{t-1} + e_i)) \\
        f_t &= \sigma(W_f x_t + b_f + U_f h_{t-1} + d_f + \tanh(V_f c_{t-1} + e_f)) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o + \tanh(V_o c_t + e_o)) \\
        h_t &= o_t \odot \tanh(c_t)

    As in the paper. Peepholes, which these replace, are diagonal and not squashed.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    Attributes:
        weight_cg: :math:`V_i`, :math:`V_f` and :math:`V_o`, (3H, H).
        bias_cg: e, (3H,), or None.

    References:
        Landi et al., 2021, "Working Memory Connections for LSTM", arXiv:2109.00020.
    """

    gates = ("i", "f", "g", "o")
    weight_cg: Tensor
    bias_cg: Tensor | None

    def add_parameters(self, parameter: Any) -> None:
        """The projection, if there is one, and what the gates see of the memory."""
        super().add_parameters(parameter)
        rows = 3 * self.hidden_size
        self.weight_cg = parameter(rows, self.hidden_size)
        biased = self.bias_ih is not None
        self.register_parameter("bias_cg", parameter(rows) if biased else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every LSTM, and Xavier for what the gates see of the memory."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_cg"), 3)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        split = 2 * self.hidden_size
        seen_i, seen_f = self._seen(c, slice(split)).chunk(2, -1)
        i = self.gate(wx.i + uh.i + seen_i)
        f = self.gate(wx.f + uh.f + seen_f)
        g = self.candidate(wx.g + uh.g)
        c = f * c + i * g
        o = self.gate(wx.o + uh.o + self._seen(c, slice(split, None)))
        return o * self.squash(c), c

    def _seen(self, c: Tensor, rows: slice) -> Tensor:
        """What gates see of the memory, by their rows of V and e."""
        bias = None if self.bias_cg is None else self.bias_cg[rows]
        return torch.tanh(F.linear(c, self.weight_cg[rows], bias))


class CoupledLSTMCell(LSTMCell):
    r"""LSTM that writes exactly what it forgets: one gate for both, :math:`f = 1 - i` (CIFG).

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o) \\
        c_t &= (1 - i_t) \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Differs from the paper in one place: Greff et al. keep the peepholes, this cell has none.
    A forget bias of b is a bias of -b on the input gate, since :math:`1 - \sigma(-b) = \sigma(b)`.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Greff et al., 2017, "LSTM: A Search Space Odyssey", arXiv:1503.04069.
    """

    gates = ("i", "g", "o")
    keeping = ("-i",)

    def set_forget_bias(self, bias: Any) -> None:
        """Fill the one gate, which forgets where it is low."""
        bias.i.fill_(-self.forget_bias)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        i = self.gate(wx.i + uh.i)
        g = self.candidate(wx.g + uh.g)
        o = self.gate(wx.o + uh.o)
        c = c + i * (g - c)
        return o * self.squash(c), c


class NoForgetLSTMCell(MemoryCell):
    r"""LSTM without a forget gate: the memory only adds, :math:`f = 1`.

    .. math::
        i_t &= \sigma(W_i x_t + b_i + U_i h_{t-1} + d_i) \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        o_t &= \sigma(W_o x_t + b_o + U_o h_{t-1} + d_o) \\
        c_t &= c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Differs from the paper in one place: :math:`g` and the output squash by :math:`\tanh`, where
    the paper has logistic functions scaled to [-2, 2] and [-1, 1].

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Hochreiter & Schmidhuber, 1997, "Long Short-Term Memory", Neural Computation 9(8).
    """

    gates = ("i", "g", "o")

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, c = state
        i = self.gate(wx.i + uh.i)
        g = self.candidate(wx.g + uh.g)
        o = self.gate(wx.o + uh.o)
        c = c + i * g
        return o * self.squash(c), c


class MultiplicativeLSTMCell(LSTMCell):
    r"""LSTM whose recurrent weights depend on the input: it sees ``m`` in place of ``h``.

    .. math::
        m_t &= (W_m x_t + b_m) \odot (V h_{t-1}) \\
        i_t &= \sigma(W_i x_t + b_i + U_i m_t + d_i) \\
        f_t &= \sigma(W_f x_t + b_f + U_f m_t + d_f) \\
        g_t &= \tanh(W_g x_t + b_g + U_g m_t + d_g) \\
        o_t &= \sigma(W_o x_t + b_o + U_o m_t + d_o) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The paper writes no biases; where its versions differ in what :math:`\tanh` takes, this is the
    LSTM's own. It has no projection: ``m`` is as wide as the memory.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    Attributes:
        weight_mh: V, (H, H).

    References:
        Krause et al., 2016, "Multiplicative LSTM for sequence modelling", arXiv:1609.07959.
    """

    gates = ("m", "i", "f", "g", "o")
    recurrent = ("i", "f", "g", "o")
    projects = False
    weight_mh: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The matrix by which the output enters ``m``."""
        self.weight_mh = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every LSTM, and orthogonal for V."""
        super().reset_parameters()
        initializers.orthogonal_(self.learned("weight_mh"), 1)

    def step(self, wx: Tensor, state: State) -> State:
        """The LSTM's step from ``m``."""
        h, c = state
        m = self.split(wx).m * F.linear(h, self.weight_mh)
        return super().step(wx, (m, c))


class JANETCell(GatedCell):
    r"""LSTM with nothing but a forget gate ("just another network").

    .. math::
        s_t &= W_f x_t + b_f + U_f h_{t-1} + d_f \\
        g_t &= \tanh(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        h_t &= \sigma(s_t) \odot h_{t-1} + (1 - \sigma(s_t - \beta)) \odot g_t

    As in the paper, where memory and output are one. With :math:`\beta > 0` more is written than
    is forgotten. The paper draws the forget gate's bias by :func:`chrono`.

    State: ``(h,)``, (B, H). Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        beta: How much further the gate is shut for what is written, :math:`\beta`.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``beta`` is no finite number.

    References:
        van der Westhuizen & Lasenby, 2018, "The unreasonable effectiveness of the forget gate",
        arXiv:1804.04849.
    """

    gates = ("f", "g")
    keeping = ("f",)

    def __init__(
        self, input_size: int, hidden_size: int, *, beta: float = 1.0, **options: Any
    ) -> None:
        check_number(self._name, beta=beta)
        super().__init__(input_size, hidden_size, **options)
        self.beta = beta

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        s = wx.f + uh.f
        g = self.candidate(wx.g + uh.g)
        return (self.gate(s) * h + (1 - self.gate(s - self.beta)) * g,)
