"""Recurrences that are coupled oscillators."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.errors import ConfigError
from seqnets.typing import State


class CoRNNCell(GatedCell):
    r"""Coupled oscillators, driven and damped: gradients that stay bounded over long times.

    .. math::
        z_t &= z_{t-1} + \Delta t\, (\tanh(V x_t + b + W y_{t-1} + d + \mathcal{W} z_{t-1})
               - \gamma y_{t-1} - \epsilon z_{t-1}) \\
        y_t &= y_{t-1} + \Delta t\, z_t

    As in the paper, with its explicit damping :math:`\epsilon z_{t-1}`; the defaults are what it
    found for sequences of pixels.

    State: ``(y, z)``, position and velocity, (B, H) each. Output: ``y``.

    Attributes:
        weight_zh: :math:`\mathcal{W}`, (H, H). W is ``weight_hh``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        dt: The time that a step takes, above 0.
        gamma: Frequency, squared, at least 0.
        epsilon: Damping, at least 0.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``dt``, ``gamma`` or ``epsilon`` is out of range.

    References:
        Rusch & Mishra, 2021, "Coupled Oscillatory Recurrent Neural Network (coRNN): An accurate
        and (gradient) stable architecture for learning long time dependencies", arXiv:2010.00951.
    """

    gates = ("a",)
    states = ("y", "z")
    weight_zh: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        dt: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        **options: Any,
    ) -> None:
        if not dt > 0:
            raise ConfigError(f"{self._name}: dt is {dt}, expected a time above 0.")
        for name, value in (("gamma", gamma), ("epsilon", epsilon)):
            if not value >= 0:
                raise ConfigError(f"{self._name}: {name} is {value}, expected at least 0.")
        super().__init__(input_size, hidden_size, **options)
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon

    def add_parameters(self, parameter: Any) -> None:
        """The velocities' matrix."""
        self.weight_zh = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and orthogonal for the velocities' matrix too."""
        super().reset_parameters()
        initializers.orthogonal_(self.weight_zh, 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        y, z = state
        force = self.candidate(wx.a + uh.a + F.linear(z, self.weight_zh))
        z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
        return y + self.dt * z, z
