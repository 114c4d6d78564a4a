"""Gated cells that are linear in their memory, so that they run in parallel over time."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.base import GatedCell
from seqnets.errors import ConfigError
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

    As in the paper's form in log-space, whose :math:`g` keeps the memory positive, but that the
    state before the first step is :math:`h_0` itself: there :math:`g(h_0)` takes its place, and a
    sequence in two halves does not give what the whole gives.

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

    As in the paper's form in log-space, with :math:`f' = \sigma(\log f - \log i)`, which two gates
    that are both shut do not make 0/0; but the state before the first step is :math:`h_0`, as in
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


class SRUCell(GatedCell):
    r"""Simple recurrent unit: a forget gate for the memory, and a highway around it.

    .. math::
        f_t &= \sigma(W_f x_t + b_f) \\
        r_t &= \sigma(W_r x_t + b_r) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot (W_n x_t + b_n) \\
        h_t &= r_t \odot c_t + (1 - r_t) \odot \alpha x_t, \qquad \alpha = \sqrt{1 + 2 e^{b}}

    with b the ``highway_bias``, at which :math:`b_r` starts: :math:`\alpha` keeps the variance of
    the outputs that of the inputs. Where I is not H, a product :math:`W_x x_t` takes the place of
    :math:`x_t`.

    Differs from the paper in two places: there the gates see the last memory too, which is
    :class:`PeepholeSRUCell` and no longer linear in the state; and there is no :math:`b_n`, which
    starts at zero here. The weights start by Xavier's rule, as those of every cell. The paper's
    first version squashes the memory where it is shown: ``Activations(cell, squash="tanh")``.

    State: ``(h, c)``, (B, H) each; h is not read back. Output: ``h``.

    Attributes:
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        highway_bias: What :math:`b_r` starts at, b; below 0 more of the input passes.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: There is a ``highway_bias`` other than 0, but no bias to start at it.

    References:
        Lei et al., 2018, "Simple Recurrent Units for Highly Parallelizable Recurrence",
        arXiv:1709.02755.
    """

    gates = ("n", "f", "r")
    recurrent = ()
    states = ("h", "c")
    output_only = True
    keeping = ("f",)
    weight_x: Tensor | None

    def __init__(
        self, input_size: int, hidden_size: int, *, highway_bias: float = 0.0, **options: Any
    ) -> None:
        if highway_bias and not options.get("bias", True):
            raise ConfigError(
                f"{self._name}: highway_bias is {highway_bias}, expected 0 where bias=False."
            )
        self.highway_bias = highway_bias  # the base draws the parameters, and then reads this
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """The highway's matrix, where the input is not as wide as the output."""
        H, I = self.hidden_size, self.input_size
        self.register_parameter("weight_x", None if I == H else parameter(H, I))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, Xavier for the highway's matrix, and its gate's bias."""
        super().reset_parameters()
        if self.weight_x is not None:
            initializers.xavier_(self.weight_x, 1)
        if self.bias_ih is not None:
            self.split(self.bias_ih).r.fill_(self.highway_bias)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate, then what the highway carries."""
        highway = x if self.weight_x is None else F.linear(x, self.weight_x)
        return torch.cat([super().project(x), highway], -1)

    def squash(self, a: Tensor) -> Tensor:
        """The memory is shown as it is."""
        return a

    def opened(self, f: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The gates, of the input's products and the last memory."""
        return self.gate(f), self.gate(r)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        _, c = state
        n, f, r, x = wx.chunk(4, -1)
        f, r = self.opened(f, r, c)
        c = n + f * (c - n)
        alpha = math.sqrt(1 + 2 * math.exp(self.highway_bias))
        return r * self.squash(c) + (1 - r) * (alpha * x), c

    def extra_repr(self) -> str:
        """The sizes and the highway's bias."""
        return super().extra_repr() + f", highway_bias={self.highway_bias}"


class PeepholeSRUCell(SRUCell):
    r"""Simple recurrent unit as published: its gates see the last memory, each unit its own.

    .. math::
        f_t &= \sigma(W_f x_t + b_f + v_f \odot c_{t-1}) \\
        r_t &= \sigma(W_r x_t + b_r + v_r \odot c_{t-1}) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot (W_n x_t + b_n) \\
        h_t &= r_t \odot c_t + (1 - r_t) \odot \alpha x_t, \qquad \alpha = \sqrt{1 + 2 e^{b}}

    As in the paper, but for :math:`b_n`, and that the weights start by Xavier's rule, :math:`v` at
    zero. The rest as in :class:`SRUCell`.

    State: ``(h, c)``, (B, H) each; h is not read back. Output: ``h``.

    References:
        Lei et al., 2018, "Simple Recurrent Units for Highly Parallelizable Recurrence",
        arXiv:1709.02755.
    """

    per_unit = ("v_f", "v_r")
    v_f: Tensor
    v_r: Tensor

    def opened(self, f: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The gates, of the input's products and the last memory."""
        return super().opened(f + self.v_f * c, r + self.v_r * c, c)


class QRNNCell(GatedCell):
    r"""Quasi-recurrent network: gates by a convolution over two inputs, and pooling over time.

    .. math::
        z_t &= \tanh(W_z x_t + b_z + V_z x_{t-1}) \\
        f_t &= \sigma(W_f x_t + b_f + V_f x_{t-1}) \\
        o_t &= \sigma(W_o x_t + b_o + V_o x_{t-1}) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot z_t \\
        h_t &= o_t \odot c_t

    As in the paper: fo-pooling, behind a convolution of width 2 that begins with zeros. The last
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
        initializers.xavier_(self.weight_before, len(self.inputs))

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


class HGRNCell(GatedCell):
    r"""Hierarchically gated network: no unit forgets faster than a bound of its own.

    .. math::
        f_t &= \gamma + (1 - \gamma) \odot \sigma(W_f x_t + b_f), \qquad \gamma = \sigma(\beta) \\
        c_t &= \mathrm{silu}(W_c x_t + b_c) \\
        h_t &= f_t \odot h_{t-1} + (1 - f_t) \odot c_t \\
        y_t &= \sigma(W_g x_t + b_g) \odot h_t

    In a deep network let the bound rise from layer to layer: the lower ones then forget, the upper
    ones remember.

    Differs from the paper in three places: the memory is real, which there is turned by a complex
    number at every step; the norm and the matrix behind the output gate are left out; and each
    cell learns its bound :math:`\gamma` alone, where the paper's bounds add up over the layers.

    State: ``(y, h)``, (B, H) each; y is not read back. Output: ``y``.

    Attributes:
        beta: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        lower_bound: Where :math:`\gamma` starts, between 0 and 1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``lower_bound`` is not between 0 and 1.

    References:
        Qin et al., 2023, "Hierarchically Gated Recurrent Neural Network for Sequence Modeling",
        arXiv:2311.04823.
    """

    gates = ("f", "c", "g")
    recurrent = ()
    states = ("y", "h")
    output_only = True
    keeping = ("f",)
    per_unit = ("beta",)
    beta: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, lower_bound: float = 0.5, **options: Any
    ) -> None:
        if not 0 < lower_bound < 1:
            raise ConfigError(
                f"{self._name}: lower_bound is {lower_bound}, expected a number between 0 and 1."
            )
        self.lower_bound = lower_bound  # the base draws the parameters, and then reads this
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the bound."""
        super().reset_parameters()
        self.beta.fill_(math.log(self.lower_bound / (1 - self.lower_bound)))

    def candidate(self, a: Tensor) -> Tensor:
        """SiLU."""
        return F.silu(a)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, h = state
        bound = torch.sigmoid(self.beta)
        f = bound + (1 - bound) * self.gate(wx.f)
        c = self.candidate(wx.c)
        h = c + f * (h - c)
        return self.gate(wx.g) * h, h

    def extra_repr(self) -> str:
        """The sizes and the bound."""
        return super().extra_repr() + f", lower_bound={self.lower_bound}"
