"""Recurrences that are oscillators, coupled or independent."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.checks import check_number
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
        check_number(self._name, above=0, dt=dt)
        check_number(self._name, least=0, gamma=gamma, epsilon=epsilon)
        super().__init__(input_size, hidden_size, **options)
        self.dt, self.gamma, self.epsilon = dt, gamma, epsilon

    def add_parameters(self, parameter: Any) -> None:
        """The velocities' matrix."""
        self.weight_zh = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and orthogonal for the velocities' matrix too."""
        super().reset_parameters()
        initializers.orthogonal_(self.learned("weight_zh"), 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        y, z = state
        force = self.candidate(wx.a + uh.a + F.linear(z, self.weight_zh))
        z = z + self.dt * (force - self.gamma * y - self.epsilon * z)
        return y + self.dt * z, z


class UnICORNNCell(GatedCell):
    r"""Independent oscillators without damping: each sees the input and itself alone.

    .. math::
        z_t &= z_{t-1} - \Delta t\, \sigma(c) \odot
               (\tanh(W x_t + b + w_y \odot y_{t-1}) + \alpha y_{t-1}) \\
        y_t &= y_{t-1} + \Delta t\, \sigma(c) \odot z_t

    As in the paper, except that W starts by Xavier's rule, as in every cell. A step can be undone,
    so that gradients neither explode nor vanish. Units mix in the next layer's W: use it in a deep
    network. :math:`w_y` starts uniform in [0, 1), and :math:`c` in [-0.1, 0.1).

    State: ``(y, z)``, position and velocity, (B, H) each. Output: ``y``.

    Attributes:
        w_y: (H,).
        c: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        dt: The time that a step takes, before each unit scales it, above 0.
        alpha: Frequency, squared, at least 0.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``dt`` or ``alpha`` is out of range.

    References:
        Rusch & Mishra, 2021, "UnICORNN: A recurrent model for learning very long time
        dependencies", arXiv:2103.05487.
    """

    gates = ("a",)
    recurrent = ()
    states = ("y", "z")
    per_unit = ("w_y", "c")
    w_y: Tensor
    c: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        dt: float = 0.126,
        alpha: float = 13.0,
        **options: Any,
    ) -> None:
        check_number(self._name, above=0, dt=dt)
        check_number(self._name, least=0, alpha=alpha)
        super().__init__(input_size, hidden_size, **options)
        self.dt, self.alpha = dt, alpha

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the weights of each unit."""
        super().reset_parameters()
        self.learned("w_y").uniform_(0, 1)
        self.learned("c").uniform_(-0.1, 0.1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        y, z = state
        dt = self.dt * torch.sigmoid(self.c)
        force = self.candidate(wx.a + self.w_y * y)
        z = z - dt * (force + self.alpha * y)
        return y + dt * z, z
