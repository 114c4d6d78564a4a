"""State space models whose input says what each unit keeps and writes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.fitting import FittingCell
from seqnets.cells.state_space import check_steps
from seqnets.typing import State


class SelectiveCell(FittingCell):
    """What state space models share whose input says, for each unit, how much is kept and written.

    A subclass declares two gates of N numbers each, what is written to and what is read from the
    memories, and writes :meth:`step`: ``wx`` holds them, then a product of low rank with a number
    for each unit, then the input as wide as the output.

    Attributes:
        weight_r: (R, I).
        weight_step: (H, R).
        bias_step: (H,).
        D: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        state_size: Numbers that each unit keeps, N.
        rank: Of the product, R; H/16 rounded up if omitted.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: A size is below 1.
    """

    states = ("y", "s")
    output_only = True
    weight_r: Tensor
    weight_step: Tensor
    bias_step: Tensor
    D: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        state_size: int = 4,
        rank: int | None = None,
        **options: Any,
    ) -> None:
        rank = -(-check_size(self, "hidden_size", hidden_size) // 16) if rank is None else rank
        # read by super().__init__
        self.state_size = check_size(self, "state_size", state_size)
        self.rank = check_size(self, "rank", rank)
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The outputs, and N numbers for each unit."""
        return self.hidden_size, self.state_size * self.hidden_size

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of the rows for what is written to, and of those for what is read."""
        return self.state_size, features

    def add_parameters(self, parameter: Any) -> None:
        """The product of low rank, and what passes beside the memory."""
        H, I, R = self.hidden_size, self.input_size, self.rank
        self.weight_r, self.weight_step = parameter(R, I), parameter(H, R)
        self.bias_step, self.D = parameter(H), parameter(H)
        self.add_rates(parameter)
        super().add_parameters(parameter)

    def add_rates(self, parameter: Any) -> None:
        """How fast memories fade, where that does not follow from the input alone."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, one for D, and uniform as in ``nn.Linear`` for the second factor."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_r"), 1)
        nn.init.uniform_(self.learned("weight_step"), -(self.rank**-0.5), self.rank**-0.5)
        nn.init.ones_(self.learned("D"))

    def project(self, x: Tensor) -> Tensor:
        """The gates, the product of low rank, and the fitted input."""
        step = F.linear(F.linear(x, self.weight_r), self.weight_step, self.bias_step)
        gates = self.product(x, self.weight_ih, self.bias_ih)
        return torch.cat([gates, step, self.fitted(x)], -1)

    def split_steps(self, wx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is written to and what is read, (B, N) each, the product and the input, (B, H)."""
        N, H = self.state_size, self.hidden_size
        written, read, product, x = wx.split([N, N, H, H], -1)
        return written, read, product, x


class S6Cell(SelectiveCell):
    r"""Selective state space model, the recurrence of Mamba: its input says what to keep (S6).

    .. math::
        \Delta_t &= \mathrm{softplus}(W_\Delta W_r x_t + b_\Delta) \\
        B_t &= W_B x_t + b_B, \qquad C_t = W_C x_t + b_C \\
        s_{t,n} &= e^{\Delta_t \odot A_n} \odot s_{t-1,n} + B_{t,n}\, \Delta_t \odot x_t,
        \qquad A = -e^{\alpha} \\
        y_t &= \sum_n C_{t,n}\, s_{t,n} + D \odot x_t

    Each unit keeps N numbers, and all units share what is written to and read from the n-th of
    them, one number each. Where I is not H, a product :math:`W_x x_t` takes the place of
    :math:`x_t` in the last two equations.

    Differs from the paper in two places beside that: there are no :math:`b_B` and :math:`b_C`,
    which start at zero here; and, as in its published code, B enters by :math:`\Delta B` in place
    of :math:`A^{-1}(e^{\Delta A} - 1) B`. What its block has around the cell, a convolution before
    and a gated branch beside, is not part of it.

    State: ``(y, s)``, (B, H) and (B, N*H), one n after the other; y is not read back. Output:
    ``y``.

    Attributes:
        weight_ih: :math:`W_B` and :math:`W_C`, (2N, I).
        weight_r: :math:`W_r`, (R, I).
        weight_step: :math:`W_\Delta`, (H, R).
        bias_step: :math:`b_\Delta`, (H,).
        alpha: (N, H).
        D: (H,).
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        state_size: Numbers that each unit keeps, N. In the paper 16; time grows with it, and so
            does that of the first call, which compiles.
        rank: Of the product that makes :math:`\Delta`, R; H/16 rounded up if omitted.
        dt_min: The least :math:`\mathrm{softplus}(b_\Delta)` at the start, above 0.
        dt_max: The largest, above ``dt_min``.
        options: ``bias``, of B and C, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: A size is below 1, or the lengths of steps are out of range.

    References:
        Gu & Dao, 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
        arXiv:2312.00752.
    """

    gates = ("B", "C")
    recurrent = ()
    alpha: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        **options: Any,
    ) -> None:
        check_steps(self._name, dt_min, dt_max)
        self.dt_min, self.dt_max = dt_min, dt_max  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def add_rates(self, parameter: Any) -> None:
        """The rates."""
        self.alpha = parameter(self.state_size, self.hidden_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, and the published code's start for steps, rates and D."""
        super().reset_parameters()
        initializers.steps_(self.learned("bias_step"), self.dt_min, self.dt_max)
        self.learned("alpha").copy_(torch.arange(1, self.state_size + 1).log()[:, None])

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above, one n after the other."""
        B, C, dt, x = self.split_steps(wx)
        dt, A = F.softplus(dt), -torch.exp(self.alpha)
        y, written, after = self.D * x, dt * x, []
        for n, s in enumerate(state[1].chunk(self.state_size, -1)):
            s = torch.exp(dt * A[n]) * s + B[:, n : n + 1] * written
            y = y + C[:, n : n + 1] * s
            after.append(s)
        return y, torch.cat(after, -1)


class LonghornCell(SelectiveCell):
    r"""Longhorn: a least squares problem in each step says what to keep and what to write.

    .. math::
        \beta_t &= \sigma(W_\beta W_r x_t + b_\beta) \\
        k_t &= W_k x_t + b_k, \qquad q_t = W_q x_t + b_q \\
        \epsilon_t &= \beta_t / (1 + \beta_t\, k_t^\top k_t) \\
        s_{t,n} &= (1 - k_{t,n}^2\, \epsilon_t) \odot s_{t-1,n}
        + k_{t,n}\, \epsilon_t \odot x_t \\
        y_t &= \sum_n q_{t,n}\, s_{t,n} + D \odot x_t

    Each unit keeps N numbers, and all units share keys and queries. A step moves these numbers as
    little as it can, and what they recall under the key, :math:`\sum_n k_{t,n}\, s_{t,n}`, towards
    :math:`x_t`: :math:`\beta` weighs the second against the first. Of the solution's matrix
    :math:`k k^\top` the paper keeps the diagonal, so that units fade number by number. Where I is
    not H, a product :math:`W_x x_t` takes the place of :math:`x_t` in the last two equations.

    Differs from the paper in one place beside that: the paper has no :math:`b_k` and :math:`b_q`,
    which start at zero here. :math:`W_\beta` of two factors, and D, are those of the published
    code. What its block has around the cell, a convolution before and a gated branch beside, is not
    part of it.

    State: ``(y, s)``, (B, H) and (B, N*H), one n after the other; y is not read back. Output:
    ``y``.

    Attributes:
        weight_ih: :math:`W_k` and :math:`W_q`, (2N, I).
        weight_r: :math:`W_r`, (R, I).
        weight_step: :math:`W_\beta`, (H, R).
        bias_step: :math:`b_\beta`, (H,).
        D: (H,).
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        state_size: Numbers that each unit keeps, N. In the paper 16; time grows with it, and so
            does that of the first call, which compiles.
        rank: Of the product that makes :math:`\beta`, R; H/16 rounded up if omitted.
        options: ``bias``, of k and q, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: A size is below 1.

    References:
        Liu et al., 2024, "Longhorn: State Space Models are Amortized Online Learners",
        arXiv:2407.14207.
    """

    gates = ("k", "q")
    recurrent = ()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, and the published code's start for beta and D."""
        super().reset_parameters()
        nn.init.uniform_(self.learned("bias_step"), -(self.rank**-0.5), self.rank**-0.5)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above, one n after the other."""
        k, q, beta, x = self.split_steps(wx)
        beta = self.gate(beta)
        epsilon = beta / (1 + beta * (k * k).sum(-1, keepdim=True))
        y, after = self.D * x, []
        for n, s in enumerate(state[1].chunk(self.state_size, -1)):
            key = k[:, n : n + 1]
            s = s + key * epsilon * (x - key * s)
            y = y + q[:, n : n + 1] * s
            after.append(s)
        return y, torch.cat(after, -1)
