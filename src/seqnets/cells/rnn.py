"""Plain recurrent networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells.gated import GatedCell
from seqnets.checks import check_choice, check_number
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

    Raises:
        ConfigError: ``scale`` is no finite number.

    References:
        Le et al., 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units",
        arXiv:1504.00941.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, scale: float = 1.0, **options: Any
    ) -> None:
        check_number(self._name, scale=scale)
        self.scale = scale  # read by super().__init__
        super().__init__(input_size, hidden_size, nonlinearity="relu", **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, but for the identity."""
        super().reset_parameters()
        nn.init.eye_(self.learned("weight_hh")).mul_(self.scale)

    def _shown_values(self) -> dict[str, Any]:
        options = super()._shown_values()  # the base's nonlinearity is not an option here
        return {name: options[name] for name in options if name != "nonlinearity"}


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
        self.learned("u_h").uniform_(0, 1)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        (h,) = state
        return (self.candidate(wx.h + self.u_h * h),)
