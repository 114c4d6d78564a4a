"""Linear oscillators as state space models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.checks import check_size
from seqnets.cells.fitting import FittingCell
from seqnets.checks import check_choice
from seqnets.typing import State


class LinOSSCell(FittingCell):
    r"""Linear oscillatory state space model: oscillators that the input drives (LinOSS).

    .. math::
        A &= e^{\alpha}, \qquad \Delta = \sigma(\delta) \\
        z_t &= z_{t-1} + \Delta \odot (-A \odot y_t + B x_t + b) \quad\text{("im")} \\
        z_t &= z_{t-1} + \Delta \odot (-A \odot y_{t-1} + B x_t + b) \quad\text{("imex")} \\
        y_t &= y_{t-1} + \Delta \odot z_t \\
        h_t &= C y_t + D \odot x_t

    It is the continuous :math:`y'' = -A y + B x + b`, :math:`h = C y + D x`, in steps of length
    :math:`\Delta`. The implicit solver, "im", makes oscillations fade, and the symplectic one,
    "imex", keeps them. Where I is not H, a product :math:`W_x x_t` takes the place of the last
    :math:`x_t`.

    Differs from the paper in one place: A is above 0, where the paper has a ReLU, and with "imex"
    counts as :math:`(1.99 / \Delta)^2` if it is more, since oscillations grow without bound from
    :math:`(2 / \Delta)^2` on. The start is that of the published code, whose B and C are complex:
    :math:`A` and :math:`\delta` are uniform in [0, 1), B and C within :math:`1 / \sqrt I` and
    :math:`1 / \sqrt N` of zero, and D is normal.

    State: ``(h, re, im)``, (B, H), (B, N) and (B, N); h is not read back. The last two are one
    complex number, which a step multiplies by a constant: :math:`z + i \sqrt A\, y` with "im", and
    :math:`z + i \rho\, (y - \Delta z / 2)`, :math:`\rho = \sqrt{A / (1 - \Delta^2 A / 4)}`, with
    "imex". Output: ``h``.

    Attributes:
        weight_ih: B, (N, I).
        weight_y: C, (H, N).
        alpha: (N,).
        delta: (N,).
        D: (H,).
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Outputs, H.
        state_size: Oscillators, N; H if omitted.
        solver: "im" or "imex".
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``state_size`` is below 1, or the solver is neither.

    References:
        Rusch & Rus, 2024, "Oscillatory State-Space Models", arXiv:2410.03943.
    """

    gates = ("f",)
    recurrent = ()
    states = ("h", "re", "im")
    output_only = True
    weight_y: Tensor
    alpha: Tensor
    delta: Tensor
    D: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        state_size: int | None = None,
        solver: str = "im",
        **options: Any,
    ) -> None:
        check_choice(self._name, ("im", "imex"), solver=solver)
        size = hidden_size if state_size is None else check_size(self, "state_size", state_size)
        self.state_size, self.solver = size, solver  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The outputs, and the oscillators' two parts."""
        return self.hidden_size, self.state_size, self.state_size

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of B."""
        return self.state_size, features

    def add_parameters(self, parameter: Any) -> None:
        """The oscillators, and what is shown of them and of the input."""
        N, H = self.state_size, self.hidden_size
        self.weight_y, self.D = parameter(H, N), parameter(H)
        self.alpha, self.delta = parameter(N), parameter(N)
        super().add_parameters(parameter)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The published code's start, and Xavier for what fits the input."""
        super().reset_parameters()
        for name, features in (("weight_ih", self.input_size), ("weight_y", self.state_size)):
            nn.init.uniform_(self.learned(name), -(features**-0.5), features**-0.5)
        nn.init.normal_(self.learned("D"))
        tiny = torch.finfo(self.alpha.dtype).eps  # 0 has no logarithm
        self.learned("alpha").uniform_(tiny, 1).log_()
        self.learned("delta").uniform_(0, 1)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above, where each oscillator is a complex number."""
        _, re, im = state
        force, x = wx.split([self.state_size, self.hidden_size], -1)
        dt, omega = torch.sigmoid(self.delta), torch.exp(self.alpha / 2)
        if self.solver == "im":
            a = 1 / (1 + (dt * omega).square())
            b = dt * omega * a
            re, im = a * (re + dt * force) - b * im, b * (re + dt * force) + a * im
            y = im / omega
        else:
            phase = (dt * omega).clamp(max=1.99)  # whose half is the sine of half the turn
            a, rest = 1 - phase.square() / 2, torch.sqrt(1 - phase.square() / 4)
            b, rho = phase * rest, phase / (dt * rest)
            re, im = (
                a * re - b * im + dt * force,
                b * re + a * im + rho * dt.square() / 2 * force,
            )
            y = im / rho + dt / 2 * re
        return F.linear(y, self.weight_y) + self.D * x, re, im
