"""Spiking neurons that tire: their threshold, or a current against them, rises as they fire."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

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

    As in the paper, without its refractory periods and delays. The letter of :math:`a` is b there.
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
        options: ``learn_decays``, which the paper has not, ``detach_reset``, ``bias``, ``device``
            and ``dtype``, as for every :class:`SpikingCell`.

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
        self.decay_v, self.decay_a, self.beta = decay_v, decay_a, beta  # the base asks for them
        super().__init__(
            input_size, hidden_size, surrogate=surrogate, threshold=threshold, **options
        )

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        s, v, a = state
        alpha, rho = self.decay("v"), self.decay("a")
        reset = (self.threshold + self.beta * a) * self.resetting(s)
        v = alpha * v + (1 - alpha) * (wx.i + uh.i) - reset
        a = rho * a + (1 - rho) * s
        threshold = self.threshold + self.beta * a
        return self.spike((v - threshold) / threshold), v, a


class RadLIFCell(SpikingCell):
    r"""Leaky integrate-and-fire neurons with a current that adapts, below the threshold too.

    .. math::
        w_t &= \beta \odot w_{t-1} + a \odot v_{t-1} + b \odot s_{t-1} \\
        v_t &= \alpha \odot (v_{t-1} - \theta s_{t-1})
               + (1 - \alpha) \odot (W x_t + U s_{t-1} + d - w_t) \\
        s_t &= \Theta(v_t - \theta)

    The recurrent adaptive LIF of the paper, whose letter of :math:`v` is u. Neurons differ: each
    learns its :math:`\alpha`, :math:`\beta`, :math:`a` in [-1, 1] and :math:`b` in [0, 2]. They
    start as there, :math:`\alpha` uniform between :math:`e^{-1/5}` and :math:`e^{-1/25}`,
    :math:`\beta` between :math:`e^{-1/30}` and :math:`e^{-1/120}`, a and b within their bounds.

    Differs from the paper in three places: it learns the decays' logits, which keep them in (0, 1),
    where that clips decays to the ranges that they start in; U has weights from a neuron to itself;
    and sequences start from zeros, not from random potentials. There, inputs are normalised over
    batches, and have no bias.

    State: ``(s, v, w)``, spikes, potential and adapting current, (B, H) each. Output: ``s``.

    Attributes:
        logit_v: Logit of :math:`\alpha`, (H,).
        logit_w: Logit of :math:`\beta`, (H,).
        a_v: :math:`a`, how the potential moves the current, (H,).
        b_s: :math:`b`, how a spike does, (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Neurons, H.
        surrogate: As for every :class:`SpikingCell`.
        options: ``threshold``, ``detach_reset``, ``bias``, ``device`` and ``dtype``, as for every
            :class:`SpikingCell`.

    References:
        Bittar & Garner, 2022, "A surrogate gradient spiking baseline for speech command
        recognition", Frontiers in Neuroscience 16, doi:10.3389/fnins.2022.865897.
    """

    gates = ("i",)
    states = ("s", "v", "w")
    decaying = ()
    per_unit = ("logit_v", "logit_w", "a_v", "b_s")
    logit_v: Tensor
    logit_w: Tensor
    a_v: Tensor
    b_s: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        surrogate: str | Surrogate = "boxcar",
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, surrogate=surrogate, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and neurons that differ."""
        super().reset_parameters()
        for name, fast, slow in (("logit_v", 5, 25), ("logit_w", 30, 120)):
            self.learned(name).uniform_(math.exp(-1 / fast), math.exp(-1 / slow)).logit_()
        self.learned("a_v").uniform_(-1, 1)
        self.learned("b_s").uniform_(0, 2)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        s, v, w = state
        alpha, beta = self.decay("v"), self.decay("w")
        w = beta * w + self.a_v.clamp(-1, 1) * v + self.b_s.clamp(0, 2) * s
        kept = alpha * (v - self.threshold * self.resetting(s))
        v = kept + (1 - alpha) * (wx.i + uh.i - w)
        return self.spike(v - self.threshold), v, w
