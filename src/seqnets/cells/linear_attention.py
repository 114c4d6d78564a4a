"""Linear attention: a matrix memory that keeps all, or in which each key fades by its own gate."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.matrix_memory import Access, MatrixMemoryCell


class LinearAttentionCell(MatrixMemoryCell):
    r"""Linear attention: a mean of all values so far, weighted by how their keys meet the query.

    .. math::
        q_t &= \phi(W_q x_t + b_q), \qquad k_t = \phi(W_k x_t + b_k), \qquad
        \phi(a) = \mathrm{elu}(a) + 1 \\
        v_t &= W_v x_t + b_v \\
        S_t &= S_{t-1} + k_t v_t^\top, \qquad z_t = z_{t-1} + k_t \\
        h_t &= S_t^\top q_t \,/\, \max(z_t^\top q_t, \epsilon), \qquad \epsilon = 10^{-6}

    for each head. Nothing fades: what came first counts as much as what came last.

    Differs from the paper in two places: the biases, which start at zero; and :math:`\epsilon`, in
    place of which its published code adds as much. The matrix after is not part of it.

    State: ``(h, S, z, m)``, (B, H), (B, N*K*V), (B, N*K) and (B, N), of which m stays 0; h is not
    read back. Output: ``h``.

    Attributes:
        epsilon: :math:`\epsilon`.
        weight_ih: Of v, (H, I).
        weight_qk: Of q and k, (2*N*K, I).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or ``key_size`` is below 1.

    References:
        Katharopoulos et al., 2020, "Transformers are RNNs: Fast Autoregressive Transformers with
        Linear Attention", arXiv:2006.16236.
    """

    gates = ("v",)
    states = ("h", "S", "z", "m")
    normalised = True
    epsilon = 1e-6

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k and v; nothing fades."""
        at = self.parts(wx)
        q, k = F.elu(at.q) + 1, F.elu(at.k) + 1
        zeros = torch.zeros_like(k[..., :1])
        return Access(q, k, at.v, log_decay=zeros, log_write=zeros)


class GatedLinearAttentionCell(MatrixMemoryCell):
    r"""Gated linear attention: the input says how fast each row of a matrix memory fades (GLA).

    .. math::
        q_t &= (W_q x_t + b_q) / \sqrt K, \qquad k_t = W_k x_t + b_k, \qquad v_t = W_v x_t + b_v \\
        \alpha_t &= \sigma(W_\alpha W_r x_t + b_\alpha)^{1/\tau}, \qquad \tau = 16 \\
        S_t &= \mathrm{diag}(\alpha_t)\, S_{t-1} + k_t v_t^\top \\
        h_t &= S_t^\top q_t

    for each head.

    Differs from the paper in two places: the biases of q, k and v, which start at zero; and what
    its block has around the cell, a norm after and a gated branch beside, is not part of it. The
    factor of q is that of the published code.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        tau: How much slower than the gate the memory fades, 16 in the paper.
        weight_ih: Of v, (H, I).
        weight_qk: Of q and k, (2*N*K, I).
        weight_r: :math:`W_r`, (R, I).
        weight_alpha: :math:`W_\alpha`, (N*K, R).
        bias_alpha: :math:`b_\alpha`, (N*K,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; H/N if omitted. Half of that in the paper.
        rank: Of the product that makes :math:`\alpha`, R, 16 in the paper.
        options: ``bias``, of q, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or another size is below 1.

    References:
        Yang et al., 2023, "Gated Linear Attention Transformers with Hardware-Efficient Training",
        arXiv:2312.06635.
    """

    gates = ("v",)
    key_gates = ("alpha",)
    tau = 16.0
    weight_r: Tensor
    weight_alpha: Tensor
    bias_alpha: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, rank: int = 16, **options: Any
    ) -> None:
        self.rank = check_size(self, "rank", rank)  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries, keys, and how fast they fade."""
        super().add_parameters(parameter)
        keys = self.num_heads * self.key_size
        self.weight_r = parameter(self.rank, self.input_size)
        self.weight_alpha, self.bias_alpha = parameter(keys, self.rank), parameter(keys)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, and zero for the biases."""
        super().reset_parameters()
        for name in ("weight_r", "weight_alpha"):
            initializers.xavier_(self.learned(name), 1)

    def project(self, x: Tensor) -> Tensor:
        """What the base projects, and the argument of the gates."""
        alpha = F.linear(F.linear(x, self.weight_r), self.weight_alpha, self.bias_alpha)
        return torch.cat([super().project(x), alpha], -1)

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v and the decay."""
        at = self.parts(wx)
        decay = F.logsigmoid(at.alpha) / self.tau
        return Access(at.q * self.key_size**-0.5, at.k, at.v, decay)
