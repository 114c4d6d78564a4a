"""State space duality: a state space model whose heads fade as a whole, and so a matrix memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.checks import check_divides
from seqnets.cells.matrix_memory import Access, MatrixMemoryCell
from seqnets.cells.state_space import check_steps


class SSDCell(MatrixMemoryCell):
    r"""State space duality, the recurrence of Mamba-2: each head fades as a whole (SSD).

    .. math::
        u_t &= W_u x_t + b_u, \qquad B_t = W_B x_t + b_B, \qquad C_t = W_C x_t + b_C \\
        \Delta_t &= \mathrm{softplus}(w_\Delta^\top x_t + b_\Delta) \\
        S_t &= e^{-\Delta_t A}\, S_{t-1} + \Delta_t\, B_t u_t^\top \\
        h_t &= S_t^\top C_t + D\, u_t

    for each head, with one number for each of :math:`\Delta_t`, A and D. B and C are those of the
    head's group.

    Differs from the paper in two places: the biases but :math:`b_\Delta`, which start at zero; and
    what its block has around the cell, convolutions of u, B and C before with their SiLU, a gated
    branch beside and a norm after, is not part of it. The start is that of the published code: A
    is uniform from 1 to 16, and D is 1.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: :math:`W_u`, (H, I).
        weight_qk: :math:`W_C` and :math:`W_B`, (2*G*K, I), with G for ``num_groups``.
        weight_heads: :math:`w_\Delta`, (N, I).
        bias_heads: :math:`b_\Delta`, (N,).
        A_log: :math:`\log A`, (N,).
        D: (N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers that each unit keeps, K; H/N if omitted. In the paper 64 to 256, with 64
            units in a head.
        num_groups: Groups of heads that share B and C, a divisor of N.
        dt_min: The least :math:`\mathrm{softplus}(b_\Delta)` at the start, above 0.
        dt_max: The largest, above ``dt_min``.
        options: ``bias``, of u, B and C, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, ``num_groups`` does not divide N, ``key_size``
            is below 1, or the lengths of steps are out of range.

    References:
        Dao & Gu, 2024, "Transformers are SSMs: Generalized Models and Efficient Algorithms Through
        Structured State Space Duality", arXiv:2405.21060.
    """

    gates = ("u",)
    head_gates = ("dt",)
    A_log: Tensor
    D: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_heads: int = 1,
        num_groups: int = 1,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        **options: Any,
    ) -> None:
        check_divides(self, "num_groups", num_groups, num_heads=num_heads)
        check_steps(self._name, dt_min, dt_max)
        # read by super().__init__
        self.num_groups, self.dt_min, self.dt_max = num_groups, dt_min, dt_max
        super().__init__(input_size, hidden_size, num_heads=num_heads, **options)

    @property
    def key_heads(self) -> int:
        """The groups, whose heads share queries and keys."""
        return self.num_groups

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries, keys and steps, the rates, and what passes beside the memory."""
        super().add_parameters(parameter)
        self.A_log, self.D = parameter(self.num_heads), parameter(self.num_heads)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, zero for the biases, and the published code's start for steps, rates and D."""
        super().reset_parameters()
        self.learned("A_log").uniform_(1, 16).log_()
        initializers.steps_(self.bias_of("dt"), self.dt_min, self.dt_max)
        nn.init.ones_(self.learned("D"))

    def access(self, wx: Tensor) -> Access:
        """The equations of C, B, the steps and the decay."""
        at, each = self.parts(wx), self.num_heads // self.num_groups
        dt = F.softplus(at.dt)
        C, B = (part.repeat_interleave(each, -2) for part in (at.q, at.k))
        return Access(C, B, dt * at.u, -torch.exp(self.A_log)[:, None] * dt)

    def readout(self, found: Tensor, wx: Tensor) -> Tensor:
        """What is found, and what passes beside."""
        return (found + self.D[:, None] * self.parts(wx).u).flatten(-2)
