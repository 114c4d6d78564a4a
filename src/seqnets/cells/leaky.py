"""Leaky networks: units that move a part of the way in each step, as in neuroscience."""

from __future__ import annotations

from typing import Any

from seqnets.cells.rnn import RNNCell
from seqnets.checks import check_number
from seqnets.typing import State


class LeakyRNNCell(RNNCell):
    r"""Leaky integrators: an Elman network whose units go only a part of the way in each step.

    .. math::
        h_t = (1 - \alpha) h_{t-1} + \alpha\, \phi(W x_t + b + U h_{t-1} + d),
        \qquad \phi = \tanh \text{ or } \mathrm{ReLU}

    The network in rates, :math:`\tau \dot h = -h + \phi(\ldots)`, in steps of Euler's:
    :math:`\alpha = \Delta t / \tau`. :class:`CTRNNCell` is the one in currents, and
    :func:`reservoir` makes an echo state network of it.

    As in the paper, except that its output is not fed back.

    State: ``(h,)``, (B, H). Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        alpha: :math:`\alpha`, above 0 and at most 1, where it is an Elman network.
        options: ``nonlinearity`` ("tanh" or "relu"), ``bias``, ``device`` and ``dtype``, as for
            every :class:`RNNCell`.

    Raises:
        ConfigError: ``alpha`` is out of its range.

    References:
        Jaeger et al., 2007, "Optimization and applications of echo state networks with
        leaky-integrator neurons", Neural Networks 20(3); Yang & Wang, 2020, "Artificial Neural
        Networks for Neuroscientists: A Primer", arXiv:2006.01001.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, alpha: float = 0.2, **options: Any
    ) -> None:
        check_number(self._name, above=0, most=1, alpha=alpha)
        super().__init__(input_size, hidden_size, **options)
        self.alpha = alpha

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation above."""
        (h,) = state
        return (h + self.alpha * (self.candidate(wx.h + uh.h) - h),)


class CTRNNCell(LeakyRNNCell):
    r"""Continuous-time network of currents, whose units fire at rates that are a function of them.

    .. math::
        x_t &= (1 - \alpha) x_{t-1} + \alpha (W u_t + b + U r_{t-1} + d) \\
        r_t &= \phi(x_t), \qquad \phi = \mathrm{ReLU} \text{ or } \tanh

    for inputs :math:`u`: :math:`\tau \dot x = -x + W u + U \phi(x)` in steps of Euler's,
    :math:`\alpha = \Delta t / \tau`. :func:`dale` makes its units excitatory or inhibitory.

    As in the paper, without noise, which inputs may bring.

    State: ``(r, x)``, rates and currents, (B, H) each. Output: ``r``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        nonlinearity: "relu" or "tanh".
        options: ``alpha``, as for :class:`LeakyRNNCell`; ``bias``, ``device`` and ``dtype``.

    References:
        Song et al., 2016, "Training Excitatory-Inhibitory Recurrent Neural Networks for Cognitive
        Tasks: A Simple and Flexible Framework", PLoS Computational Biology 12(2),
        doi:10.1371/journal.pcbi.1004792.
    """

    states = ("r", "x")

    def __init__(
        self, input_size: int, hidden_size: int, *, nonlinearity: str = "relu", **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity, **options)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, x = state
        x = x + self.alpha * (wx.h + uh.h - x)
        return self.candidate(x), x
