"""Spiking neurons that tire: their threshold rises as they fire."""

from __future__ import annotations

import math
from typing import Any

from seqnets.cells.spiking import SpikingCell
from seqnets.cells.surrogates import Surrogate
from seqnets.checks import check_number
from seqnets.typing import State


class ALIFCell(SpikingCell):
    r"""Leaky integrate-and-fire neurons whose threshold rises as they fire (LSNN).

    .. math::
        v_t &= \alpha v_{t-1} + (1 - \alpha) (W x_t + b + U s_{t-1} + d) - \theta_{t-1} s_{t-1} \\
        a_t &= \rho a_{t-1} + (1 - \rho) s_{t-1}, \qquad \theta_t = \theta + \beta a_t \\
        s_t &= \Theta((v_t - \theta_t) / \theta_t)

    As in the paper, without its refractory periods and delays. :math:`a` is called b there.
    Its authors' code subtracts the threshold after it has risen, :math:`\theta_t`, and has no
    weights from a neuron to itself. Their networks have some neurons without adaptation.

    State: ``(s, v, a)``, spikes, potential and adaptation, (B, H) each. Output: ``s``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        decay_v: :math:`\alpha`, in (0, 1): 20 steps, where a step is 1 ms in the paper.
        decay_a: :math:`\rho`, in (0, 1): 200 steps, of the 200 to 1200 in the paper.
        beta: How much the threshold rises, at least 0.
        surrogate: As for every :class:`SpikingCell`.
        threshold: :math:`\theta`, above 0.
        options: ``learn_decays`` and ``learn_threshold``, which the paper does not have,
            ``detach_reset``, ``bias``, ``device`` and ``dtype``, as for every :class:`SpikingCell`.

    Raises:
        ConfigError: A number is out of its range.

    References:
        Bellec et al., 2018, "Long short-term memory and learning-to-learn in networks of spiking
        neurons", arXiv:1803.09574.
    """

    gates = ("i",)
    states = ("s", "v", "a")
    decaying = ("v", "a")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        decay_v: float = math.exp(-1 / 20),
        decay_a: float = math.exp(-1 / 200),
        beta: float = 1.8,
        surrogate: str | Surrogate = "triangle",
        threshold: float = 0.01,
        **options: Any,
    ) -> None:
        check_number(self._name, least=0, beta=beta)
        self.decay_v, self.decay_a, self.beta = decay_v, decay_a, beta  # read by super().__init__
        super().__init__(
            input_size, hidden_size, surrogate=surrogate, threshold=threshold, **options
        )

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        s, v, a = state
        alpha, rho, theta = self.decay("v"), self.decay("a"), self.fires_at()
        reset = (theta + self.beta * a) * self.resetting(s)
        v = alpha * v + (1 - alpha) * (wx.i + uh.i) - reset
        a = rho * a + (1 - rho) * s
        threshold = theta + self.beta * a
        # not a quotient, whose derivative by the threshold overflows where potentials are large
        return self.spike((v - threshold) * (1 / threshold)), v, a
