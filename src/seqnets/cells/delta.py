"""The delta rule: a matrix memory that replaces what it holds under a key."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.matrix_memory import Access, MatrixMemoryCell, unit


class DeltaNetCell(MatrixMemoryCell):
    r"""Linear attention by the delta rule: a value takes the place of the one under the same key.

    .. math::
        q_t &= \mathrm{unit}(W_q x_t + b_q) / \sqrt K, \qquad k_t = \mathrm{unit}(W_k x_t + b_k) \\
        v_t &= W_v x_t + b_v, \qquad \beta_t = \sigma(w_\beta^\top x_t + b_\beta) \\
        S_t &= S_{t-1} + \beta_t\, k_t (v_t - S_{t-1}^\top k_t)^\top \\
        h_t &= S_t^\top q_t

    for each head, with :math:`\mathrm{unit}(a) = u / \sqrt{u^\top u + 10^{-6}}` and :math:`u =
    a\,\sigma(a)`.

    Differs from the paper in two places: the biases, which start at zero; and what its block has
    around the cell, convolutions of q, k and v before with the SiLU of v, and a norm after, is not
    part of it. The factor of q and the :math:`10^{-6}` are those of the published code.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: Of v, (H, I).
        weight_qk: Of q and k, (2*N*K, I).
        weight_heads: :math:`w_\beta`, (N, I).
        bias_heads: :math:`b_\beta`, (N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted.
        options: ``bias``, of q, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or ``key_size`` is below 1.

    References:
        Yang et al., 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence
        Length", arXiv:2406.06484; Schlag et al., 2021, "Linear Transformers Are Secretly Fast
        Weight Programmers", arXiv:2102.11174.
    """

    gates = ("v",)
    head_gates: ClassVar[tuple[str, ...]] = ("beta",)

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v and what is replaced; nothing fades."""
        at = self.parts(wx)
        q, k, rate = unit(F.silu(at.q)), unit(F.silu(at.k)), self.gate(at.beta)
        return Access(q * self.key_size**-0.5, k, at.v, torch.zeros_like(rate), rate=rate)


class GatedDeltaNetCell(DeltaNetCell):
    r"""Delta rule with a gate: what a matrix memory holds is replaced key by key, and fades.

    .. math::
        q_t &= \mathrm{unit}(W_q x_t + b_q) / \sqrt K, \qquad k_t = \mathrm{unit}(W_k x_t + b_k) \\
        v_t &= W_v x_t + b_v, \qquad \beta_t = \sigma(w_\beta^\top x_t + b_\beta) \\
        \alpha_t &= \exp(-A\, \mathrm{softplus}(w_\alpha^\top x_t + b_\alpha)) \\
        S_t &= \alpha_t\, S_{t-1} + \beta_t\, k_t (v_t - \alpha_t\, S_{t-1}^\top k_t)^\top \\
        h_t &= S_t^\top q_t

    for each head, with :math:`\mathrm{unit}(a) = u / \sqrt{u^\top u + 10^{-6}}` and :math:`u =
    a\,\sigma(a)`.

    Differs from the paper in two places: the biases but :math:`b_\alpha`, which start at zero; and
    what its block has around the cell, convolutions of q, k and v before with the SiLU of v, a norm
    after and a gated branch beside, is not part of it. The factor of q, the :math:`10^{-6}`, and
    the start of A and :math:`b_\alpha` are those of the published code: :math:`A` is uniform up to
    16, and :math:`\mathrm{softplus}(b_\alpha)` between 0.001 and 0.1, uniform in its logarithm.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: Of v, (H, I).
        weight_qk: Of q and k, (2*N*K, I).
        weight_heads: :math:`w_\beta` and :math:`w_\alpha`, (2N, I).
        bias_heads: :math:`b_\beta` and :math:`b_\alpha`, (2N,).
        A_log: :math:`\log A`, (N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; H/N if omitted. Half of that in the paper.
        options: ``bias``, of q, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or ``key_size`` is below 1.

    References:
        Yang et al., 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
        arXiv:2412.06464.
    """

    head_gates = ("beta", "alpha")
    A_log: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries, keys, the heads' gates, and how fast a head fades."""
        super().add_parameters(parameter)
        self.A_log = parameter(self.num_heads)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, zero for the biases, and the published code's start of what fades."""
        super().reset_parameters()
        drawn = torch.empty_like(self.A_log, dtype=torch.float64)
        self.learned("A_log").copy_(drawn.uniform_(0, 16).clamp(min=1e-4).log())
        initializers.steps_(self.bias_of("alpha"), 0.001, 0.1)

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v, what is replaced and what fades."""
        fades = torch.exp(self.A_log)[:, None] * F.softplus(self.parts(wx).alpha)
        return super().access(wx)._replace(log_decay=-fades)


class DeltaProductCell(MatrixMemoryCell):
    r"""Several steps of the delta rule in one: a step replaces what is found under several keys.

    .. math::
        q_t &= \mathrm{unit}(W_q x_t + b_q) / \sqrt K \\
        k_{t,j} &= \mathrm{unit}(W_{k,j} x_t + b_{k,j}), \qquad
        v_{t,j} = W_{v,j} x_t + b_{v,j}, \qquad
        \beta_{t,j} = 2\, \sigma(w_{\beta,j}^\top x_t + b_{\beta,j}) \\
        S &\leftarrow S + \beta_{t,j}\, k_{t,j} (v_{t,j} - S^\top k_{t,j})^\top,
        \qquad j = 1 \text{ to } n \\
        h_t &= S_t^\top q_t

    for each head, with :math:`\mathrm{unit}(a) = u / \sqrt{u^\top u + 10^{-6}}` and :math:`u =
    a\,\sigma(a)`. What n writes do to the memory is a product of n matrices :math:`1 - \beta k
    k^\top`, which can be any rotation of n dimensions.

    Differs from the paper in two places: the biases, which start at zero; and what its block has
    around the cell, convolutions of q, k and v before with the SiLU of v, and a norm after, is not
    part of it. :math:`\beta` is that of its models of [-1, 1], where a write may also reverse what
    it finds; the factor of q and the :math:`10^{-6}` are those of the published code.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: Of v, one block of rows for each write, (n*H, I).
        weight_qk: Of q, then of k for each write, ((1 + n)*N*K, I).
        weight_heads: :math:`w_\beta`, likewise, (n*N, I).
        bias_heads: :math:`b_\beta`, (n*N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted.
        writes: How many keys a step writes under, n. Time grows with it.
        options: ``bias``, of q, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or another size is below 1.

    References:
        Siems et al., 2025, "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder
        Products", arXiv:2502.10297.
    """

    gates = ("v",)
    head_gates: ClassVar[tuple[str, ...]] = ("beta",)
    writes: int

    def __init__(
        self, input_size: int, hidden_size: int, *, writes: int = 2, **options: Any
    ) -> None:
        self.writes = check_size(self, "writes", writes)  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of the values' rows, for all writes."""
        return self.writes * self.hidden_size, features

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries, and for each write keys and how much is replaced."""
        super().add_parameters(parameter)
        I, heads = self.input_size, self.writes * self.num_heads
        keys = (heads + self.num_heads) * self.key_size
        self.weight_qk = parameter(keys, I)
        self.register_parameter("bias_qk", None if self.bias_ih is None else parameter(keys))
        self.weight_heads, self.bias_heads = parameter(heads, I), parameter(heads)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, for each write by itself, and zero for the biases."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_ih"), self.writes)
        initializers.xavier_(self.learned("weight_qk"), 1 + self.writes)
        initializers.xavier_(self.learned("weight_heads"), self.writes)

    def parts(self, wx: Tensor) -> Any:
        """Name the parts of the projected input: ``parts(wx).v`` is (..., n, N, V)."""
        n, N, K, V = self.writes, self.num_heads, self.key_size, self.value_size
        v, q, k, beta = wx.split([n * N * V, N * K, n * N * K, n * N], -1)
        v, k, beta = (part.unflatten(-1, (n, N, -1)) for part in (v, k, beta))
        return self._parts(v, q.unflatten(-1, (N, K)), k, beta)

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v and what is replaced; nothing fades."""
        at = self.parts(wx)
        q, k, rate = unit(F.silu(at.q)), unit(F.silu(at.k)), 2 * self.gate(at.beta)
        return Access(q * self.key_size**-0.5, k, at.v, torch.zeros_like(q[..., :1]), rate=rate)


class KimiDeltaAttentionCell(DeltaNetCell):
    r"""Kimi delta attention: the delta rule in a memory whose keys fade one by one (KDA).

    .. math::
        q_t &= \mathrm{unit}(W_q x_t + b_q) / \sqrt K, \qquad k_t = \mathrm{unit}(W_k x_t + b_k) \\
        v_t &= W_v x_t + b_v, \qquad \beta_t = \sigma(w_\beta^\top x_t + b_\beta) \\
        \alpha_t &= \exp(-A\, \mathrm{softplus}(W_\alpha W_r x_t + b_\alpha)) \\
        S_t &= (1 - \beta_t\, k_t k_t^\top)\, \mathrm{diag}(\alpha_t)\, S_{t-1}
        + \beta_t\, k_t v_t^\top \\
        h_t &= S_t^\top q_t

    for each head, with :math:`\mathrm{unit}(a) = u / \sqrt{u^\top u + 10^{-6}}` and :math:`u =
    a\,\sigma(a)`.

    Differs from the paper in two places: the biases but :math:`b_\alpha`, which start at zero; and
    what its block has around the cell, convolutions of q, k and v before with the SiLU of v, a norm
    after and a gated branch beside, is not part of it. The factor of q, the :math:`10^{-6}` and
    :math:`A`, uniform from 1 to 16 at the start, are those of the published code.
    :math:`b_\alpha` starts as in gated DeltaNet: :math:`\mathrm{softplus}(b_\alpha)` is between
    0.001 and 0.1, uniform in its logarithm.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: Of v, (H, I).
        weight_qk: Of q and k, (2*N*K, I).
        weight_heads: :math:`w_\beta`, (N, I).
        bias_heads: :math:`b_\beta`, (N,).
        weight_r: :math:`W_r`, (R, I).
        weight_alpha: :math:`W_\alpha`, (N*K, R).
        bias_alpha: :math:`b_\alpha`, (N*K,).
        A_log: :math:`\log A`, (N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted.
        rank: Of the product that makes :math:`\alpha`, R; as in the paper H/N if omitted.
        options: ``bias``, of q, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or another size is below 1.

    References:
        Kimi Team, 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture",
        arXiv:2510.26692.
    """

    key_gates = ("alpha",)
    weight_r: Tensor
    weight_alpha: Tensor
    bias_alpha: Tensor
    A_log: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_heads: int = 1,
        rank: int | None = None,
        **options: Any,
    ) -> None:
        values = check_size(self, "hidden_size", hidden_size)
        values //= check_size(self, "num_heads", num_heads)
        # read by super().__init__
        self.rank = values if rank is None else check_size(self, "rank", rank)
        super().__init__(input_size, hidden_size, num_heads=num_heads, **options)

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries, keys, the heads' gates, and how fast each key fades."""
        super().add_parameters(parameter)
        keys = self.num_heads * self.key_size
        self.weight_r = parameter(self.rank, self.input_size)
        self.weight_alpha, self.bias_alpha = parameter(keys, self.rank), parameter(keys)
        self.A_log = parameter(self.num_heads)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, zero for the biases, and a start for what fades."""
        super().reset_parameters()
        for name in ("weight_r", "weight_alpha"):
            initializers.xavier_(self.learned(name), 1)
        self.learned("A_log").uniform_(1, 16).log_()
        initializers.steps_(self.learned("bias_alpha"), 0.001, 0.1)

    def project(self, x: Tensor) -> Tensor:
        """What the base projects, and the argument of softplus."""
        alpha = F.linear(F.linear(x, self.weight_r), self.weight_alpha, self.bias_alpha)
        return torch.cat([super().project(x), alpha], -1)

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v, what is replaced and what fades."""
        fades = torch.exp(self.A_log)[:, None] * F.softplus(self.parts(wx).alpha)
        return super().access(wx)._replace(log_decay=-fades)
