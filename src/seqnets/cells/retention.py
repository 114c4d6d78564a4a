"""Retention, the recurrence of RetNet: a matrix memory that fades at fixed rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.matrix_memory import Access, MatrixMemoryCell


class RetentionCell(MatrixMemoryCell):
    r"""Retention: each head keeps a matrix that fades at a rate of its own, which is not learned.

    .. math::
        q_t &= W_q x_t + b_q, \qquad k_t = (W_k x_t + b_k) / \sqrt K, \qquad v_t = W_v x_t + b_v \\
        S_t &= \gamma\, S_{t-1} + k_t v_t^\top, \qquad \gamma = 1 - 2^{-5-j} \\
        h_t &= S_t^\top q_t

    for each head j, counted from 0.

    Differs from the paper in three places: queries and keys do not turn with their step (xPos), so
    that decay alone tells how long ago something was written; the biases, which start at zero; and
    what its block has around the cell, a group norm after and a gated branch beside, is not part
    of it.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: Of v, (H, I).
        weight_qk: Of q and k, (2*N*K, I).
        log_gamma: The logarithm of :math:`\gamma`, a buffer (N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; H/N if omitted. Half of that in the paper.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or ``key_size`` is below 1.

    References:
        Sun et al., 2023, "Retentive Network: A Successor to Transformer for Large Language Models",
        arXiv:2307.08621.
    """

    gates = ("v",)
    log_gamma: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries and keys, and how each head fades."""
        super().add_parameters(parameter)
        self.register_buffer("log_gamma", self.weight_ih.new_empty(self.num_heads))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, zero for the biases, and the paper's rates."""
        super().reset_parameters()
        heads = torch.arange(self.num_heads, dtype=torch.float64)
        self.log_gamma.copy_(torch.log1p(-torch.exp2(-5 - heads)))

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v and the decay."""
        at = self.parts(wx)
        decay = self.log_gamma[:, None].expand_as(at.k[..., :1])
        return Access(at.q, at.k * self.key_size**-0.5, at.v, decay)
