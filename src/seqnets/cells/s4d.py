"""Diagonal state space models: each unit has damped oscillators of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.cells.state_space import check_steps, held
from seqnets.typing import State


class S4DCell(GatedCell):
    r"""Diagonal state space model: a unit sees one signal, through damped oscillators (S4D).

    .. math::
        u_t &= W_u x_t + b_u \\
        \lambda_n &= -e^{\rho_n} + i \omega_n, \qquad \Delta = e^{\delta} \\
        s_{t,n} &= e^{\lambda_n \odot \Delta} \odot s_{t-1,n}
        + \frac{e^{\lambda_n \odot \Delta} - 1}{\lambda_n} \odot u_t \\
        y_t &= 2\, \mathrm{Re} \sum_n C_n \odot s_{t,n} + D \odot u_t

    It is the continuous :math:`s_n' = \lambda_n s_n + u`, :math:`y = 2\, \mathrm{Re} \sum_n C_n s_n
    + D u` of each unit, whose input is held during steps of length :math:`\Delta`. Units do not see
    each other.

    Differs from the paper in two places: there u is the input itself; and what its layer has after,
    a nonlinearity and a matrix with a gate, is not part of it. As in the published code, C makes up
    for a B, and the start is S4D-Lin: all :math:`\lambda_n` are :math:`-1/2 + i \pi n`, with n from
    0, :math:`\Delta` is uniform in its logarithm, and C, which is complex, and D are normal with
    variances of 1.

    State: ``(y, re, im)``, (B, H), (B, N*H) and (B, N*H), one n after the other; y is not read
    back. Output: ``y``.

    Attributes:
        weight_ih: :math:`W_u`, (H, I).
        weight_re: Re C, (N, H).
        weight_im: Im C, (N, H).
        rho: (N, H).
        omega: (N, H).
        delta: (H,).
        D: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        state_size: Complex numbers that each unit keeps, N. In the paper 32, half of its N; time
            grows with it, and so does that of the first call, which compiles.
        dt_min: The least :math:`\Delta` at the start, above 0.
        dt_max: The largest, above ``dt_min``.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``state_size`` is below 1, or the lengths of steps are out of range.

    References:
        Gu et al., 2022, "On the Parameterization and Initialization of Diagonal State Space
        Models", arXiv:2206.11893.
    """

    gates = ("u",)
    recurrent = ()
    states = ("y", "re", "im")
    output_only = True
    per_unit = ("delta", "D")
    weight_re: Tensor
    weight_im: Tensor
    rho: Tensor
    omega: Tensor
    delta: Tensor
    D: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        state_size: int = 4,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        **options: Any,
    ) -> None:
        check_steps(self._name, dt_min, dt_max)
        self.state_size = check_size(self, "state_size", state_size)  # read by super().__init__
        self.dt_min, self.dt_max = dt_min, dt_max
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The outputs, and the two parts of N numbers for each unit."""
        H, N = self.hidden_size, self.state_size
        return H, N * H, N * H

    def add_parameters(self, parameter: Any) -> None:
        """The oscillators, and what is shown of them."""
        H, N = self.hidden_size, self.state_size
        self.weight_re, self.weight_im = parameter(N, H), parameter(N, H)
        self.rho, self.omega = parameter(N, H), parameter(N, H)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the published code's start for all but what enters."""
        super().reset_parameters()
        for weight in (self.learned("weight_re"), self.learned("weight_im")):
            nn.init.normal_(weight, std=0.5**0.5)
        self.learned("rho").fill_(math.log(0.5))
        self.learned("omega").copy_(math.pi * torch.arange(self.state_size)[:, None])
        self.learned("delta").uniform_(math.log(self.dt_min), math.log(self.dt_max))
        nn.init.normal_(self.learned("D"))

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above, one n after the other, in real numbers."""
        a, b, p, q = held(-torch.exp(self.rho), self.omega, torch.exp(self.delta))
        y, real, imaginary = self.D * wx.u, [], []
        parts = zip(*(part.chunk(self.state_size, -1) for part in state[1:]), strict=True)
        for n, (re, im) in enumerate(parts):
            real.append(a[n] * re - b[n] * im + p[n] * wx.u)
            imaginary.append(b[n] * re + a[n] * im + q[n] * wx.u)
            y = y + 2 * (self.weight_re[n] * real[n] - self.weight_im[n] * imaginary[n])
        return y, torch.cat(real, -1), torch.cat(imaginary, -1)
