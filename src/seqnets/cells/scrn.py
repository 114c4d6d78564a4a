"""Structurally constrained networks: units that change slowly beside an Elman network's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.checks import check_number
from seqnets.typing import State


class SCRNCell(GatedCell):
    r"""Structurally constrained network: an Elman network that sees a slow average of inputs.

    .. math::
        s_t &= \alpha s_{t-1} + (1 - \alpha) B x_t \\
        h_t &= \sigma(W x_t + b + U h_{t-1} + d + P s_t)

    As in the paper, which has no biases. Its prediction reads both parts of the state:
    ``AllStates(cell)`` outputs them.

    State: ``(h, s)``, (B, H) and (B, C). Output: ``h``.

    Attributes:
        weight_xs: B, (C, I).
        weight_sh: P, (H, C).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        context_size: Units of the slow average, C, at least 1; as many as H if omitted.
        alpha: How much of the average a step keeps, between 0 and 1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``context_size`` is below 1, or ``alpha`` is out of range.
        DtypeError: ``context_size`` is no integer.

    References:
        Mikolov et al., 2015, "Learning Longer Memory in Recurrent Neural Networks",
        arXiv:1412.7753.
    """

    gates = ("h",)
    states = ("h", "s")
    weight_xs: Tensor
    weight_sh: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        context_size: int | None = None,
        alpha: float = 0.95,
        **options: Any,
    ) -> None:
        check_number(self._name, above=0, below=1, alpha=alpha)
        check_size(self, "hidden_size", hidden_size)
        size = hidden_size if context_size is None else context_size
        self.context_size = check_size(self, "context_size", size)  # read by super().__init__
        self.alpha = alpha
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of the output, and of the slow average."""
        return self.hidden_size, self.context_size

    def add_parameters(self, parameter: Any) -> None:
        """The matrices to and from the slow average."""
        self.weight_xs = parameter(self.context_size, self.input_size)
        self.weight_sh = parameter(self.hidden_size, self.context_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and Xavier for the matrices to and from the slow average."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_xs"), 1)
        initializers.xavier_(self.learned("weight_sh"), 1)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``, then ``B x``."""
        return torch.cat([super().project(x), F.linear(x, self.weight_xs)], -1)

    def candidate(self, a: Tensor) -> Tensor:
        """The logistic function."""
        return torch.sigmoid(a)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        h, s = state
        w, bx = wx.split([self.hidden_size, self.context_size], -1)
        s = bx + self.alpha * (s - bx)
        return self.candidate(w + self.recur(h).h + F.linear(s, self.weight_sh)), s
