"""Legendre memory units: a memory of the last inputs as a polynomial over time."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.checks import is_number
from seqnets.errors import ConfigError
from seqnets.typing import State


class LMUCell(GatedCell):
    r"""Legendre memory unit: it holds one signal of the last steps, as a polynomial of time.

    .. math::
        u_t &= e_x x_t + e_h h_{t-1} + e_m m_{t-1} \\
        m_t &= A m_{t-1} + B u_t \\
        h_t &= \tanh(W x_t + b + U h_{t-1} + d + V m_t)

    As in the paper, which has no biases. A and B are not learned: :math:`m_t` are the coefficients
    of the Legendre polynomials, up to the order Q - 1, that come closest to u over the last
    :math:`\theta` steps, where u is constant during a step (zero-order hold). :math:`e_m` starts
    at zero, the other weights as in every cell.

    State: ``(h, m)``, (B, H) and (B, Q). Output: ``h``.

    Attributes:
        weight_xu: :math:`e_x`, (1, I).
        weight_hu: :math:`e_h`, (1, H).
        weight_mu: :math:`e_m`, (1, Q).
        weight_mh: V, (H, Q).
        A: (Q, Q), a buffer.
        B: (Q,), a buffer.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        order: Coefficients, Q, at least 1: more of them hold finer details.
        theta: Steps that the memory spans, above 0 and finite.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``order`` is below 1, or ``theta`` is no finite number above 0.
        DtypeError: ``order`` is no integer.

    References:
        Voelker et al., 2019, "Legendre Memory Units: Continuous-Time Representation in Recurrent
        Neural Networks", NeurIPS.
    """

    gates = ("h",)
    states = ("h", "m")
    weight_xu: Tensor
    weight_hu: Tensor
    weight_mu: Tensor
    weight_mh: Tensor
    A: Tensor
    B: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        order: int = 16,
        theta: float = 100.0,
        **options: Any,
    ) -> None:
        self.order = check_size(self, "order", order)  # read by super().__init__
        if not is_number(theta) or not 0 < theta < math.inf:
            raise ConfigError(
                f"{self._name}: theta is {theta!r}, expected a finite number of steps above 0."
            )
        self.theta = theta
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of the output, and of the memory."""
        return self.hidden_size, self.order

    def add_parameters(self, parameter: Any) -> None:
        """What enters the memory, what is read from it, and how it moves."""
        self.weight_xu = parameter(1, self.input_size)
        self.weight_hu = parameter(1, self.hidden_size)
        self.weight_mu = parameter(1, self.order)
        self.weight_mh = parameter(self.hidden_size, self.order)
        self.register_buffer("A", torch.empty_like(self.weight_mu.expand(self.order, -1)))
        self.register_buffer("B", torch.empty_like(self.weight_mu[0]))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, Xavier for all but :math:`e_m`, and how the memory moves."""
        super().reset_parameters()
        for name in ("weight_xu", "weight_hu", "weight_mh"):
            initializers.xavier_(self.learned(name), 1)
        for buffer, moves in zip((self.A, self.B), _delay(self.order, self.theta), strict=True):
            buffer.copy_(moves)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b``, then ``e_x x``."""
        return torch.cat([super().project(x), F.linear(x, self.weight_xu)], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        h, m = state
        w, u = wx.split([self.hidden_size, 1], -1)
        u = u + F.linear(h, self.weight_hu) + F.linear(m, self.weight_mu)
        m = F.linear(m, self.A) + u * self.B
        return self.candidate(w + self.recur(h).h + F.linear(m, self.weight_mh)), m


def _delay(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """A, (Q, Q), and B, (Q,), of one step, in float64."""
    i = torch.arange(order, dtype=torch.float64)[:, None]
    j = i.T
    rate = (2 * i + 1) / theta
    a = rate * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = rate * (-1.0) ** i
    held = torch.zeros(order + 1, order + 1, dtype=torch.float64)  # the input does not move
    held[:order] = torch.cat([a, b], 1)
    moved = torch.matrix_exp(held)[:order]
    return moved[:, :order], moved[:, order]
