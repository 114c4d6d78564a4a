"""Real-gated linear recurrent units, the recurrence of Hawk and Griffin."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.fitting import FittingCell
from seqnets.checks import check_number
from seqnets.errors import ConfigError
from seqnets.typing import State


class RGLRUCell(FittingCell):
    r"""Real-gated linear recurrent unit: each unit fades at its own rate, and a gate slows it down.

    .. math::
        r_t &= \sigma(W_r x_t + b_r) \\
        i_t &= \sigma(W_i x_t + b_i) \\
        a_t &= \sigma(\Lambda)^{c\, r_t}, \qquad c = 8 \\
        h_t &= a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot (i_t \odot x_t)

    Where I is not H, a product :math:`W_x x_t` takes the place of :math:`x_t`.

    As in the paper, and so are the parameters at the start: :math:`\sigma(\Lambda)^c` is uniform
    between two bounds, and the weights are normal with a variance of 1/I. What its block has around
    the cell, a convolution before and a gated branch beside, is not part of it.

    State: ``(h,)``, (B, H). Output: ``h``.

    Attributes:
        c: How much the gate can slow a unit's fading, 8 in the paper.
        Lambda: (H,).
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        a_min: The least of :math:`\sigma(\Lambda)^c` at the start, above 0.
        a_max: The largest, above ``a_min`` and below 1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``a_min`` or ``a_max`` is out of range.

    References:
        De et al., 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention for
        Efficient Language Models", arXiv:2402.19427.
    """

    gates = ("r", "i")
    recurrent = ()
    per_unit = ("Lambda",)
    c = 8.0
    Lambda: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        a_min: float = 0.9,
        a_max: float = 0.999,
        **options: Any,
    ) -> None:
        check_number(self._name, a_min=a_min, a_max=a_max)
        if not 0 < a_min < a_max < 1:
            raise ConfigError(
                f"{self._name}: a_min and a_max are {a_min} and {a_max}, expected "
                f"0 < a_min < a_max < 1."
            )
        self.a_min, self.a_max = a_min, a_max  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Normal for the weights, zero for the biases, and the paper's rates."""
        super().reset_parameters()
        for weight in (self.learned("weight_ih"), self.learned("weight_x")):
            if weight is not None:
                nn.init.normal_(weight, std=self.input_size**-0.5)
        a = torch.empty_like(self.Lambda, dtype=torch.float64).uniform_(self.a_min, self.a_max)
        log_a = torch.log(a) / self.c
        self.learned("Lambda").copy_(log_a - torch.log(-torch.expm1(log_a)))

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        (h,) = state
        r, i, x = wx.chunk(3, -1)
        log_a = self.c * F.logsigmoid(self.Lambda) * self.gate(r)
        rest = -torch.expm1(2 * log_a)
        fades = rest > 0  # at 0, where the gate is shut, the root has no derivative
        beta = torch.where(fades, torch.sqrt(torch.where(fades, rest, 1)), 0)
        return (torch.exp(log_a) * h + beta * (self.gate(i) * x),)
