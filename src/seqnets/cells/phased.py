"""LSTM whose units take part only some of the time."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqnets.cells.checks import check_size
from seqnets.cells.lstm import PeepholeLSTMCell
from seqnets.checks import check_flags, check_number
from seqnets.errors import ConfigError
from seqnets.typing import State


class PhasedLSTMCell(PeepholeLSTMCell):
    r"""LSTM with a time gate that opens periodically: for long sequences, and for events.

    .. math::
        \varphi_t &= \frac{(t - s) \bmod \tau}{\tau} \\
        k_t &= \begin{cases}
            2 \varphi_t / r & \varphi_t < r / 2 \\
            2 - 2 \varphi_t / r & r / 2 \le \varphi_t < r \\
            \alpha \varphi_t & \text{else}
        \end{cases} \\
        c_t &= k_t \odot \tilde c_t + (1 - k_t) \odot c_{t-1} \\
        h_t &= k_t \odot \tilde h_t + (1 - k_t) \odot h_{t-1}

    with :math:`\tilde h_t` and :math:`\tilde c_t` from :class:`PeepholeLSTMCell`'s step.

    Differs from the paper in one place: it learns :math:`\log \tau`, which keeps periods above 0.
    As there, :math:`\alpha` is 0 in evaluation. The output gate's peephole sees
    :math:`\tilde c_t`.

    State: ``(h, c, t)``, (B, H) each, where ``t`` counts the steps before; with time stamps
    ``(h, c)``. Output: ``h``. Time is a number of the cell's dtype: in bfloat16 a count
    stops at 256 steps, in float16 at 2,048.

    Attributes:
        stamped: True: times are those of the steps, not those that pass between two.
        log_tau: :math:`\log \tau`, of each unit's period in units of time, (H,).
        shift: s, when the period begins, (H,).

    Args:
        input_size: Features of the input, I, with the time stamp.
        hidden_size: Units, H.
        timed: Whether the input's last feature is the time, which enters the time gate alone.
            Else time is the number of steps before.
        open_ratio: Share of its period in which a unit is open, r in (0, 1).
        leak: How far a shut unit opens in training, :math:`\alpha` in [0, 1).
        periods: Shortest and longest period to start from: their logarithms are drawn uniformly.
        options: ``forget_bias``, ``bias``, ``device`` and ``dtype``, as for every
            :class:`LSTMCell`.

    Raises:
        ConfigError: A number is out of its range, or a time stamp is the only feature.

    References:
        Neil et al., 2016, "Phased LSTM: Accelerating Recurrent Network Training for Long or
        Event-based Sequences", arXiv:1610.09513.
    """

    states: tuple[str, ...] = ("h", "c", "t")
    clocks: tuple[str, ...] = ("t",)
    per_unit = ("p_i", "p_f", "p_o", "log_tau", "shift")
    projects = False
    stamped: ClassVar[bool] = True
    log_tau: Tensor
    shift: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        timed: bool = False,
        open_ratio: float = 0.05,
        leak: float = 0.001,
        periods: tuple[float, float] = (1.0, 1000.0),
        **options: Any,
    ) -> None:
        check_flags(self._name, timed=timed)
        features = check_size(self, "input_size", input_size) - timed
        if not features:
            raise ConfigError(
                f"{self._name}: input_size is {input_size}, expected at least 2 with timed=True.\n"
                f"  The last feature is the time stamp, and there has to be another one."
            )
        check_number(self._name, above=0, below=1, open_ratio=open_ratio)
        check_number(self._name, least=0, below=1, leak=leak)
        shortest, longest = periods
        if not 0 < shortest <= longest:
            raise ConfigError(
                f"{self._name}: periods are {tuple(periods)}, expected the shortest above 0 and "
                f"the longest not below it."
            )
        self.timed, self.open_ratio, self.leak = timed, open_ratio, leak
        self.periods = (float(shortest), float(longest))
        super().__init__(features, hidden_size, **options)
        self.input_size = input_size
        if timed:
            self.states, self.clocks = ("h", "c"), ()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every LSTM; periods between the bounds, shifts uniform within a period."""
        super().reset_parameters()
        shortest, longest = self.periods
        log_tau = self.learned("log_tau").uniform_(math.log(shortest), math.log(longest))
        self.learned("shift").copy_(torch.rand_like(self.shift) * log_tau.exp())

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate; then the time, once for each unit, where it is an input."""
        if not self.timed:
            return super().project(x)
        time = x[..., -1:].expand(*x.shape[:-1], self.hidden_size)
        return torch.cat([super().project(x[..., :-1]), time], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """What the LSTM proposes, as far as the time gate lets it."""
        h, c, *clock = state
        time = wx[..., -self.hidden_size :] if self.timed else clock[0]
        k = self.opening(time)
        new_h, new_c = super().step(wx[..., : len(self.gates) * self.hidden_size], (h, c))
        return h + k * (new_h - h), c + k * (new_c - c), *(t + 1 for t in clock)

    def opening(self, time: Tensor) -> Tensor:
        """How far the time gate is open, k."""
        turns = (time - self.shift) * torch.exp(-self.log_tau)
        phase = turns - torch.floor(turns)
        rising = 2 * phase / self.open_ratio
        leak = self.leak if self.training else 0.0
        falling = torch.where(phase < self.open_ratio, 2 - rising, leak * phase)
        return torch.where(phase < self.open_ratio / 2, rising, falling)
