"""Networks that step along an ordinary differential equation, which keeps them stable."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqnets.cells.computed import ComputedCell
from seqnets.checks import check_number
from seqnets.typing import State


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
        check_number(self._name, above=0, epsilon=epsilon)
        check_number(self._name, least=0, gamma=gamma)
        self.epsilon, self.gamma = epsilon, gamma  # read by super().__init__
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


class LipschitzRNNCell(ComputedCell):
    r"""Steps along a linear equation and a nonlinear one, both nearly antisymmetric.

    .. math::
        M_k &= (1 - \beta) (W_k + W_k^\top) + \beta (W_k - W_k^\top) - \gamma I
               \quad\text{for } k \text{ in } a, n \\
        h_t &= h_{t-1} + \epsilon (M_a h_{t-1} + d_a + \tanh(V x_t + b + M_n h_{t-1} + d_n))

    As in the paper, but for :math:`d_a`, which starts at zero here, and that both matrices share
    :math:`\beta` and :math:`\gamma`, as in its authors' code. :math:`W_k` starts normal with a
    deviation of 1/H.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        weight_hh: :math:`M_a` and :math:`M_n`, (2H, H), computed from :math:`W_k`,
            ``parametrizations.weight_hh.original``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        epsilon: The size of a step, above 0.
        beta: How antisymmetric the matrices are, from 0 (symmetric) to 1. The stable ones of the
            paper have at least 0.5.
        gamma: Diffusion, at least 0: how fast a state fades.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``epsilon``, ``beta`` or ``gamma`` is out of range.

    References:
        Erichson et al., 2021, "Lipschitz Recurrent Neural Networks", arXiv:2006.12070.
    """

    gates = ("a", "n")
    inputs = ("n",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        epsilon: float = 0.01,
        beta: float = 0.65,
        gamma: float = 0.001,
        **options: Any,
    ) -> None:
        check_number(self._name, above=0, epsilon=epsilon)
        check_number(self._name, least=0, gamma=gamma)
        check_number(self._name, least=0, most=1, beta=beta)
        self.epsilon, self.beta, self.gamma = epsilon, beta, gamma
        super().__init__(input_size, hidden_size, **options)

    def parametrization(self) -> nn.Module:
        """Both parts of each matrix, weighed, and diffusion."""
        return _NearlyAntisymmetric(self.beta, self.gamma)

    def draw_(self, weight: Tensor) -> None:
        """Normal, with a deviation of 1/H."""
        nn.init.normal_(weight, std=1 / self.hidden_size)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        (h,) = state
        return (h + self.epsilon * (uh.a + self.candidate(wx.n + uh.n)),)


class _Antisymmetric(nn.Module):
    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, weight: Tensor) -> Tensor:
        diffusion = self.gamma * torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return weight - weight.T - diffusion


class _NearlyAntisymmetric(nn.Module):
    def __init__(self, beta: float, gamma: float) -> None:
        super().__init__()
        self.beta, self.gamma = beta, gamma

    def forward(self, weight: Tensor) -> Tensor:
        square = weight.unflatten(0, (-1, weight.shape[1]))  # one for each gate
        turned = square.transpose(1, 2)
        mixed = (1 - self.beta) * (square + turned) + self.beta * (square - turned)
        identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        return (mixed - self.gamma * identity).flatten(0, 1)
