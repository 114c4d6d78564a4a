"""Networks that step along an ordinary differential equation, which keeps them stable."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqnets.cells.computed import ComputedCell
from seqnets.errors import ConfigError
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
