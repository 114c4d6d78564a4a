"""State space models: linear memories in continuous time, read once a step."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.checks import check_size
from seqnets.cells.fitting import FittingCell
from seqnets.checks import is_number
from seqnets.errors import ConfigError
from seqnets.typing import State


class S5Cell(FittingCell):
    r"""Simplified state space layer: damped oscillators that all see the whole input (S5).

    .. math::
        \lambda &= -e^{\rho} + i \omega, \qquad \Delta = e^{\delta} \\
        h_t &= e^{\lambda \Delta} \odot h_{t-1}
        + \frac{e^{\lambda \Delta} - 1}{\lambda} \odot (B x_t + b) \\
        y_t &= 2\, \mathrm{Re}(C h_t) + D \odot x_t

    It is the continuous :math:`h' = \lambda h + B x`, :math:`y = 2\, \mathrm{Re}(C h) + D x`, whose
    input is held during steps of length :math:`\Delta`. Where I is not H, a product :math:`W_x x_t`
    takes the place of the last :math:`x_t`.

    Differs from the paper in two places: it has no b, which starts at zero here; and the real part
    of :math:`\lambda`, which there is learned as it is, stays below zero. At the start, as there,
    :math:`\lambda` are eigenvalues of the normal part of the HiPPO-LegS matrix of 2N by 2N, one of
    each conjugate pair, and :math:`\Delta` is uniform in its logarithm. B and C are normal, with
    variances of 1/I and 1/N; the authors rotate theirs into the eigenbasis, scale B by N, and allow
    several blocks.

    State: ``(y, re, im)``, (B, H), (B, N) and (B, N); y is not read back. Output: ``y``.

    Attributes:
        weight_ih: Re B and Im B, (2N, I).
        weight_re: Re C, (H, N).
        weight_im: Im C, (H, N).
        rho: (N,).
        omega: (N,).
        delta: (N,).
        D: (H,).
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Outputs, H.
        state_size: Complex memories, N, half of the paper's P; H if omitted.
        dt_min: The least :math:`\Delta` at the start, above 0.
        dt_max: The largest, above ``dt_min``.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``state_size`` is below 1, or the lengths of steps are out of range.

    References:
        Smith et al., 2023, "Simplified State Space Layers for Sequence Modeling",
        arXiv:2208.04933.
    """

    gates = ("re", "im")
    recurrent = ()
    states = ("y", "re", "im")
    output_only = True
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
        state_size: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        **options: Any,
    ) -> None:
        size = hidden_size if state_size is None else check_size(self, "state_size", state_size)
        check_steps(self._name, dt_min, dt_max)
        self.state_size = size  # read by super().__init__
        self.dt_min, self.dt_max = dt_min, dt_max
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The outputs, and the memories' two parts."""
        return self.hidden_size, self.state_size, self.state_size

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of Re B and of Im B."""
        return self.state_size, features

    def add_parameters(self, parameter: Any) -> None:
        """The oscillators, and what is shown of them and of the input."""
        N, H = self.state_size, self.hidden_size
        self.weight_re, self.weight_im = parameter(H, N), parameter(H, N)
        self.rho, self.omega, self.delta = parameter(N), parameter(N), parameter(N)
        self.D = parameter(H)
        super().add_parameters(parameter)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The paper's start, and Xavier for what fits the input."""
        super().reset_parameters()
        nn.init.normal_(self.learned("weight_ih"), std=(2 * self.input_size) ** -0.5)
        for weight in (self.learned("weight_re"), self.learned("weight_im")):
            nn.init.normal_(weight, std=(2 * self.state_size) ** -0.5)
        nn.init.normal_(self.learned("D"))
        self.learned("rho").fill_(math.log(0.5))
        self.learned("omega").copy_(_frequencies(self.state_size))
        self.learned("delta").uniform_(math.log(self.dt_min), math.log(self.dt_max))

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above, in real numbers."""
        _, re, im = state
        in_re, in_im, x = wx.split([self.state_size, self.state_size, self.hidden_size], -1)
        a, b, p, q = held(-torch.exp(self.rho), self.omega, torch.exp(self.delta))
        re, im = a * re - b * im + p * in_re - q * in_im, b * re + a * im + q * in_re + p * in_im
        y = F.linear(re, self.weight_re) - F.linear(im, self.weight_im)
        return 2 * y + self.D * x, re, im


def check_steps(name: str, dt_min: float, dt_max: float) -> None:
    """Raise ConfigError unless two lengths of steps are finite numbers above 0, in order."""
    numbers = is_number(dt_min) and is_number(dt_max)
    if not numbers or not 0 < dt_min < dt_max < math.inf:
        raise ConfigError(
            f"{name}: dt_min and dt_max are {dt_min!r} and {dt_max!r}, "
            f"expected 0 < dt_min < dt_max, both finite numbers."
        )


def held(decay: Tensor, omega: Tensor, dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""What a step keeps of an oscillator, and how much of its input, held meanwhile, enters.

    Args:
        decay: The real part of :math:`\lambda`, not 0.
        omega: The imaginary part.
        dt: The length of the step.

    Returns:
        Real and imaginary part of :math:`e^{\lambda \Delta}`, and of
        :math:`(e^{\lambda \Delta} - 1) / \lambda`.
    """
    radius, phase = torch.exp(decay * dt), omega * dt
    a, b = radius * torch.cos(phase), radius * torch.sin(phase)
    below = torch.expm1(decay * dt) * torch.cos(phase) - 2 * torch.sin(phase / 2).square()  # a - 1
    norm = decay * decay + omega * omega
    return a, b, (below * decay + b * omega) / norm, (b * decay - below * omega) / norm


@cache
def _frequencies(count: int) -> Tensor:
    """Positive imaginary parts of the eigenvalues of the normal part of HiPPO-LegS, ascending.

    That matrix, of 2N by 2N, is -1/2 on the diagonal, and skew-symmetric besides; its singular
    values without the diagonal are the imaginary parts, each twice.
    """
    numbers = torch.arange(2 * count, dtype=torch.float64, device="cpu")  # never "meta", by context
    root = torch.sqrt(numbers + 0.5)
    skew = torch.outer(root, root)
    return torch.linalg.svdvals(skew.triu(1) - skew.tril(-1)).flip(0)[::2]
