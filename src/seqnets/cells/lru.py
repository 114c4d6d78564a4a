"""Linear recurrences in complex numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.gated import GatedCell
from seqnets.checks import check_number
from seqnets.errors import ConfigError
from seqnets.typing import State


class LRUCell(GatedCell):
    r"""Linear recurrent unit: complex memories that turn and fade, each at its own rate.

    .. math::
        \lambda &= \exp(-e^{\nu} + i e^{\theta}) \\
        h_t &= \lambda \odot h_{t-1} + e^{\gamma} \odot (B x_t + b) \\
        y_t &= \mathrm{Re}(C h_t) + D x_t + d

    :math:`|\lambda|` is below 1 whatever is learned. It starts on a ring, uniform between two
    radii, and :math:`e^{\gamma} = \sqrt{1 - |\lambda|^2}`, so that memories that last do not grow
    large.

    As in the paper, which has no biases; but B and D start by Xavier's rule, as in every cell.
    There are as many complex memories as outputs, in real arithmetic: ``re`` and ``im``.

    State: ``(y, re, im)``, (B, H) each; y is not read back. Output: ``y``.

    Attributes:
        weight_ih: Re B, Im B and D, (3H, I).
        weight_re: Re C, (H, H).
        weight_im: Im C, (H, H).
        nu: (H,).
        theta: (H,).
        gamma: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        r_min: Inner radius of the ring, at least 0.
        r_max: Outer radius, above the inner one and at most 1.
        max_phase: The largest angle between two steps at the start, in radians, above 0.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: A radius or the angle is out of range.

    References:
        Orvieto et al., 2023, "Resurrecting Recurrent Neural Networks for Long Sequences",
        arXiv:2303.06349.
    """

    gates = ("re", "im", "y")
    recurrent = ()
    states = ("y", "re", "im")
    output_only = True
    per_unit = ("nu", "theta", "gamma")
    weight_re: Tensor
    weight_im: Tensor
    nu: Tensor
    theta: Tensor
    gamma: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        **options: Any,
    ) -> None:
        check_number(self._name, r_min=r_min, r_max=r_max)
        if not 0 <= r_min < r_max <= 1:
            raise ConfigError(
                f"{self._name}: r_min and r_max are {r_min} and {r_max}, expected "
                f"0 <= r_min < r_max <= 1."
            )
        check_number(self._name, above=0, max_phase=max_phase)
        self.r_min, self.r_max = r_min, r_max  # read by super().__init__
        self.max_phase = max_phase
        super().__init__(input_size, hidden_size, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled cell; older ones have these three options as a tuple, ``ring``."""
        named = zip(("r_min", "r_max", "max_phase"), state.get("ring", ()), strict=False)
        super().__setstate__(dict(named) | state)

    def add_parameters(self, parameter: Any) -> None:
        """The matrix by which the memories are shown."""
        self.weight_re = parameter(self.hidden_size, self.hidden_size)
        self.weight_im = parameter(self.hidden_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, the ring, and normal for C with a variance of 1/H."""
        super().reset_parameters()
        for weight in (self.learned("weight_re"), self.learned("weight_im")):
            nn.init.normal_(weight, std=self.hidden_size**-0.5)
        tiny = torch.finfo(self.nu.dtype).eps  # 0 and 1 have no logarithms
        nu, theta, gamma = map(self.learned, ("nu", "theta", "gamma"))
        squared = nu.uniform_(tiny, 1 - tiny) * (self.r_max**2 - self.r_min**2) + self.r_min**2
        nu.copy_(torch.log(-0.5 * torch.log(squared)))
        theta.uniform_(tiny, 1).mul_(self.max_phase).log_()
        gamma.copy_(0.5 * torch.log(-torch.expm1(-2 * torch.exp(nu))))

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, re, im = state
        radius, phase = torch.exp(-torch.exp(self.nu)), torch.exp(self.theta)
        a, b = radius * torch.cos(phase), radius * torch.sin(phase)  # lambda = a + ib
        gamma = torch.exp(self.gamma)
        re, im = a * re - b * im + gamma * wx.re, b * re + a * im + gamma * wx.im
        y = F.linear(re, self.weight_re) - F.linear(im, self.weight_im)
        return y + wx.y, re, im
