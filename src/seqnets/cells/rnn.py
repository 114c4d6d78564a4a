"""Plain recurrent networks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqnets.cells.base import GatedCell
from seqnets.cells.computed import ComputedCell
from seqnets.checks import check_choice
from seqnets.errors import ConfigError
from seqnets.typing import State

_NONLINEARITIES = {"tanh": torch.tanh, "relu": torch.relu}


class RNNCell(GatedCell):
    r"""Elman network: the hidden layer sees the input and its own last output.

    .. math::
        h_t = \phi(W x_t + b + U h_{t-1} + d), \qquad \phi = \tanh \text{ or } \mathrm{ReLU}

    Differs from the paper in one place: :math:`\phi` there is the logistic function.

    State: ``(h,)``, (B, H). Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        nonlinearity: "tanh" or "relu".
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    References:
        Elman, 1990, "Finding Structure in Time", Cognitive Science 14(2).
    """

    gates = ("h",)

    def __init__(
        self, input_size: int, hidden_size: int, *, nonlinearity: str = "tanh", **options: Any
    ) -> None:
        check_choice(self._name, _NONLINEARITIES, nonlinearity=nonlinearity)
        super().__init__(input_size, hidden_size, **options)
        self.nonlinearity = nonlinearity

    def candidate(self, a: Tensor) -> Tensor:
        """The nonlinearity."""
        return _NONLINEARITIES[self.nonlinearity](a)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        return (self.candidate(wx.h + uh.h),)


class IRNNCell(RNNCell):
    r"""Rectified network that starts by remembering: its recurrent matrix is the identity.

    .. math::
        h_t = \mathrm{ReLU}(W x_t + b + U h_{t-1} + d), \qquad U = \alpha I \text{ at the start}

    Differs from the paper in one place: the input's weights start by Xavier's rule, as those of
    every cell, and not with a deviation of 0.001.

    State: ``(h,)``, (B, H). Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        scale: :math:`\alpha`; below 1 it forgets slowly.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    References:
        Le et al., 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
        arXiv:1504.00941.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, scale: float = 1.0, **options: Any
    ) -> None:
        self.scale = scale  # the base draws the parameters, and then reads this
        super().__init__(input_size, hidden_size, nonlinearity="relu", **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, but for the identity."""
        super().reset_parameters()
        nn.init.eye_(self.weight_hh).mul_(self.scale)


class IndRNNCell(RNNCell):
    r"""Units that see the input and themselves alone: each has one recurrent weight.

    .. math::
        h_t = \phi(W x_t + b + u_h \odot h_{t-1}), \qquad \phi = \mathrm{ReLU} \text{ or } \tanh

    :math:`u_h` starts uniform in [0, 1).

    Differs from the paper in one place: that holds :math:`|u_h|` below :math:`2^{1/T}` in training
    on sequences of T steps.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        u_h: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        nonlinearity: "relu" or "tanh".
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    References:
        Li et al., 2018, "Independently Recurrent Neural Network (IndRNN): Building A Longer and
        Deeper RNN", arXiv:1803.04831.
    """

    recurrent = ()
    per_unit = ("u_h",)
    u_h: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, nonlinearity: str = "relu", **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the recurrent weights."""
        super().reset_parameters()
        self.u_h.uniform_(0, 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        (h,) = state
        return (self.candidate(wx.h + self.u_h * h),)


class AntisymmetricRNNCell(ComputedCell):
    r"""Steps along an ordinary differential equation that neither explodes nor dies out.

    .. math::
        M &= W_h - W_h^\top - \gamma I \\
        h_t &= h_{t-1} + \epsilon \tanh(V x_t + b + M h_{t-1} + d)

    As in the paper, which has one bias.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        weight_hh: M, (H, H), computed from :math:`W_h`, ``parametrizations.weight_hh.original``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        epsilon: The size of a step, above 0.
        gamma: Diffusion, at least 0: how fast a state fades. Without any, steps of a size above 0
            are not quite stable.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``epsilon`` or ``gamma`` is out of range.

    References:
        Chang et al., 2019, "AntisymmetricRNN: A Dynamical System View on Recurrent Neural
        Networks", arXiv:1902.09689.
    """

    gates: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        epsilon: float = 0.1,
        gamma: float = 0.01,
        **options: Any,
    ) -> None:
        if not epsilon > 0:
            raise ConfigError(f"{self._name}: epsilon is {epsilon}, expected a step above 0.")
        if not gamma >= 0:
            raise ConfigError(f"{self._name}: gamma is {gamma}, expected at least 0.")
        self.epsilon, self.gamma = epsilon, gamma  # the base asks for the parametrization
        super().__init__(input_size, hidden_size, **options)

    def parametrization(self) -> nn.Module:
        """The antisymmetric part, and diffusion."""
        return _Antisymmetric(self.gamma)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        (h,) = state
        return (h + self.epsilon * self.candidate(wx.h + uh.h),)


class GatedAntisymmetricRNNCell(AntisymmetricRNNCell):
    r"""Antisymmetric network whose units each have a step size, by a gate.

    .. math::
        M &= W_h - W_h^\top - \gamma I \\
        z_t &= \sigma(V_z x_t + b_z + M h_{t-1} + d) \\
        h_t &= h_{t-1} + \epsilon z_t \odot \tanh(V_h x_t + b_h + M h_{t-1} + d)

    As in the paper: the gate has no recurrent matrix of its own, which would spoil the stability.

    State: ``(h,)``, (B, H). Output: ``h``.

    References:
        Chang et al., 2019, "AntisymmetricRNN: A Dynamical System View on Recurrent Neural
        Networks", arXiv:1902.09689.
    """

    gates = ("z", "h")
    recurrent = ("h",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        z = self.gate(wx.z + uh.h)
        return (h + self.epsilon * z * self.candidate(wx.h + uh.h),)


class _Antisymmetric(nn.Module):
    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, weight: Tensor) -> Tensor:
        diffusion = self.gamma * torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return weight - weight.T - diffusion


class FastRNNCell(GatedCell):
    r"""Elman network with a weighted residual connection: two numbers more, and stable training.

    .. math::
        n_t &= \tanh(W x_t + b + U h_{t-1} + d) \\
        h_t &= \sigma(\alpha)\, n_t + \sigma(\beta)\, h_{t-1}

    As in the paper. :math:`\alpha` starts at -3 and :math:`\beta` at 3: a step changes little.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        alpha: (1,).
        beta: (1,).

    References:
        Kusupati et al., 2018, "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated
        Recurrent Neural Network", arXiv:1901.02358.
    """

    gates = ("n",)
    alpha: Tensor
    beta: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The two weights."""
        self.alpha, self.beta = parameter(1), parameter(1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the two weights."""
        super().reset_parameters()
        self.alpha.fill_(-3.0)
        self.beta.fill_(3.0)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        n = self.candidate(wx.n + uh.n)
        return (torch.sigmoid(self.alpha) * n + torch.sigmoid(self.beta) * h,)


class FastGRNNCell(GatedCell):
    r"""Gate and candidate by the same matrices: a gated cell as small as an ungated one.

    .. math::
        a_t &= W x_t + b + U h_{t-1} + d \\
        z_t &= \sigma(a_t + b_z) \\
        h_t &= (\sigma(\zeta)\,(1 - z_t) + \sigma(\nu)) \odot \tanh(a_t) + z_t \odot h_{t-1}

    As in the paper, but that the gate's bias counts from the candidate's. The paper's matrices of
    low rank, and its sparse ones, are not here. :math:`\zeta` starts at 1 and :math:`\nu` at -4.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        b_z: (H,), or None.
        zeta: (1,).
        nu: (1,).

    References:
        Kusupati et al., 2018, "FastGRNN: A Fast, Accurate, Stable and Tiny Kilobyte Sized Gated
        Recurrent Neural Network", arXiv:1901.02358.
    """

    gates = ("n",)
    b_z: Tensor | None
    zeta: Tensor
    nu: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """The gate's bias and two weights."""
        biased = self.bias_ih is not None
        self.register_parameter("b_z", parameter(self.hidden_size) if biased else None)
        self.zeta, self.nu = parameter(1), parameter(1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the two weights."""
        super().reset_parameters()
        self.zeta.fill_(1.0)
        self.nu.fill_(-4.0)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        a = wx.n + uh.n
        z = self.gate(a if self.b_z is None else a + self.b_z)
        write = torch.sigmoid(self.zeta) * (1 - z) + torch.sigmoid(self.nu)
        return (write * self.candidate(a) + z * h,)
