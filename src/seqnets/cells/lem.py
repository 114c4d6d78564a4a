"""Long expressive memory: units that each have a time scale, which the state and input set."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from seqnets.cells.gated import GatedCell
from seqnets.checks import check_number
from seqnets.typing import State


class LEMCell(GatedCell):
    r"""Long expressive memory: every unit takes steps of its own size, which gates choose.

    .. math::
        r_t &= \Delta t\, \sigma(W_r x_t + b_r + U_r y_{t-1} + d_r) \\
        s_t &= \Delta t\, \sigma(W_s x_t + b_s + U_s y_{t-1} + d_s) \\
        z_t &= (1 - r_t) \odot z_{t-1} + r_t \odot \tanh(W_z x_t + b_z + U_z y_{t-1} + d_z) \\
        y_t &= (1 - s_t) \odot y_{t-1} + s_t \odot \tanh(W_y x_t + b_y + U_y z_t + d_y)

    As in the paper, whose letters are :math:`\Delta t_n` for r and :math:`\overline{\Delta t}_n`
    for s.

    State: ``(y, z)``, (B, H) each. Output: ``y``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        dt: The longest time that a step takes, above 0.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``dt`` is not above 0.

    References:
        Rusch et al., 2022, "Long Expressive Memory for Sequence Modeling", arXiv:2110.04744.
    """

    gates = ("r", "s", "z", "y")
    states = ("y", "z")
    keeping = ("-r", "-s")

    def __init__(
        self, input_size: int, hidden_size: int, *, dt: float = 1.0, **options: Any
    ) -> None:
        check_number(self._name, above=0, dt=dt)
        super().__init__(input_size, hidden_size, **options)
        self.dt = dt

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above: two products, the second of what the first one changed."""
        y, z = state
        w = self.split(wx)
        u = self.recur(y, "r", "s", "z")
        r = self.dt * self.gate(w.r + u.r)
        s = self.dt * self.gate(w.s + u.s)
        z = z + r * (self.candidate(w.z + u.z) - z)
        (u_y,) = self.recur(z, "y")
        y = y + s * (self.candidate(w.y + u_y) - y)
        return y, z
