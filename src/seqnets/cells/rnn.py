"""Plain recurrent networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.base import GatedCell
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
        if nonlinearity not in _NONLINEARITIES:
            raise ConfigError(
                f"{self._name}: nonlinearity is {nonlinearity!r}, expected 'tanh' or 'relu'."
            )
        super().__init__(input_size, hidden_size, **options)
        self.nonlinearity = nonlinearity

    def candidate(self, a: Tensor) -> Tensor:
        """The nonlinearity."""
        return _NONLINEARITIES[self.nonlinearity](a)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        return (self.candidate(wx.h + uh.h),)
