"""RWKV-4, whose memories are means, and RWKV-6 and RWKV-7, whose memories are matrices."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.cells.matrix_memory import Access, MatrixMemoryCell, unit
from seqnets.typing import State


class RWKV4Cell(GatedCell):
    r"""RWKV-4: a mean of all values so far, whose weights grow with their keys and fade with time.

    .. math::
        r_t &= W_r x_t + b_r, \qquad k_t = W_k x_t + b_k, \qquad v_t = W_v x_t + b_v \\
        h_t &= \sigma(r_t) \odot \frac{a_{t-1} + e^{u + k_t} \odot v_t}{n_{t-1} + e^{u + k_t}} \\
        a_t &= e^{-w} \odot a_{t-1} + e^{k_t} \odot v_t \\
        n_t &= e^{-w} \odot n_{t-1} + e^{k_t}, \qquad w = e^{\omega}

    ``a`` and ``n`` are both the paper's times :math:`\exp(-m_t)`, :math:`m_t = \max(m_{t-1} - w,
    k_t)`, so that ``h`` is the same and nothing overflows. Where nothing is stored yet,
    :math:`n_{t-1} = 0`, :math:`m_t = k_t`. From then on :math:`n_t \ge 1`, and all weights of a
    mean are at least 1 together; they count as 1 where a given state has less.

    Differs from the paper in two places: the biases, which start at zero; and what its block has
    around the cell, the shift of tokens before and a matrix after, is not part of it. w and u start
    as in the published code, for a first layer; the matrices start by Xavier's rule, as in every
    cell.

    State: ``(h, a, n, m)``, (B, H) each; h is not read back. Output: ``h``.

    Attributes:
        omega: :math:`\omega`, (H,).
        bonus: :math:`u`, (H,).

    References:
        Peng et al., 2023, "RWKV: Reinventing RNNs for the Transformer Era", arXiv:2305.13048.
    """

    gates = ("r", "k", "v")
    recurrent = ()
    states = ("h", "a", "n", "m")
    output_only = True
    per_unit = ("omega", "bonus")
    omega: Tensor
    bonus: Tensor

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, and the published code's start of w and u for a first layer."""
        super().reset_parameters()
        unit = torch.arange(self.hidden_size, dtype=torch.float64)
        self.learned("omega").copy_(8 * (unit / unit[-1].clamp(min=1)) ** 0.7 - 5)
        self.learned("bonus").copy_(math.log(0.3) + 0.5 * ((unit + 1) % 3 - 1))

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, a, n, m = state
        new, empty = self.bonus + wx.k, n == 0
        top = torch.maximum(torch.where(empty, new, m), new)
        before, now = torch.exp(torch.where(empty, new, m) - top), torch.exp(new - top)
        mean = (before * a + now * wx.v) / (before * n + now).clamp(min=1)
        kept = torch.where(empty, wx.k, m - torch.exp(self.omega))
        m = torch.maximum(kept, wx.k)
        before, now = torch.exp(kept - m), torch.exp(wx.k - m)
        return self.gate(wx.r) * mean, before * a + now * wx.v, before * n + now, m


class _RWKVCell(MatrixMemoryCell):
    """What RWKV-6 and RWKV-7 share: a product of low rank says how keys fade."""

    gates = ("v",)
    weight_w1: Tensor
    weight_w2: Tensor
    bias_w: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, rank: int = 32, **options: Any
    ) -> None:
        self.rank = check_size(self, "rank", rank)  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries and keys, and how they fade."""
        super().add_parameters(parameter)
        keys = self.num_heads * self.key_size
        self.weight_w1 = parameter(self.rank, self.input_size)
        self.weight_w2, self.bias_w = parameter(keys, self.rank), parameter(keys)

    def fading(self, x: Tensor) -> Tensor:
        """The argument of w."""
        return F.linear(torch.tanh(F.linear(x, self.weight_w1)), self.weight_w2, self.bias_w)


class RWKV6Cell(_RWKVCell):
    r"""RWKV-6, "Finch": the memory is read before it fades, and what is new counts by itself.

    .. math::
        r_t &= W_r x_t + b_r, \qquad k_t = W_k x_t + b_k, \qquad v_t = W_v x_t + b_v \\
        w_t &= \exp(-\exp(W_2 \tanh(W_1 x_t) + b_w)) \\
        h_t &= (S_{t-1} + \mathrm{diag}(u)\, k_t v_t^\top)^\top r_t \\
        S_t &= \mathrm{diag}(w_t)\, S_{t-1} + k_t v_t^\top

    for each head. With :math:`W_2` at zero, w is constant, as in RWKV-5, "Eagle".

    Differs from the paper in two places: the biases of r, k and v, which start at zero; and what
    its block has around the cell, the shift of tokens before, a norm after and a gated branch
    beside, is not part of it. The start is that of the published code, for a first layer.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: :math:`W_v`, (H, I).
        weight_qk: :math:`W_r` and :math:`W_k`, (2*N*K, I).
        weight_w1: :math:`W_1`, (R, I).
        weight_w2: :math:`W_2`, (N*K, R).
        bias_w: :math:`b_w`, (N*K,).
        bonus: :math:`u`, (N*K,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted, which is 64
            there.
        rank: Of the product that makes w, R. In the paper 64.
        options: ``bias``, of r, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or another size is below 1.

    References:
        Peng et al., 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence",
        arXiv:2404.05892.
    """

    key_gates = ("w",)
    reads_first = True
    bonus: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries and keys, how they fade, and how much what is new counts."""
        super().add_parameters(parameter)
        self.bonus = parameter(self.num_heads * self.key_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The published code's start for a first layer, whose rates are spread over the keys."""
        super().reset_parameters()
        initializers.orthogonal_(self.learned("weight_ih"), 1)
        initializers.orthogonal_(self.learned("weight_qk"), 2).chunk(2)[1].mul_(0.1)
        nn.init.zeros_(self.learned("weight_w1"))
        nn.init.uniform_(self.learned("weight_w2"), -0.01, 0.01)
        n = torch.arange(self.num_heads * self.key_size, dtype=torch.float64)
        self.learned("bias_w").copy_(5 * (n / n[-1].clamp(min=1)) ** 0.7 - 6)
        self.learned("bonus").copy_(0.1 * ((n + 1) % 3 - 1))

    def project(self, x: Tensor) -> Tensor:
        """What the base projects, and the argument of w."""
        return torch.cat([super().project(x), self.fading(x)], -1)

    def access(self, wx: Tensor) -> Access:
        """The equations of r, k, v and w."""
        at = self.parts(wx)
        # from 10 on w is 0, and the slope of its logarithm soon too large for float16
        return Access(at.q, at.k, at.v, -torch.exp(at.w.clamp(max=10)))

    def readout(self, found: Tensor, wx: Tensor) -> Tensor:
        """What was there, and what is new."""
        at, bonus = self.parts(wx), self.bonus.unflatten(0, (self.num_heads, self.key_size))
        return (found + (at.q * bonus * at.k).sum(-1, keepdim=True) * at.v).flatten(-2)


class RWKV7Cell(_RWKVCell):
    r"""RWKV-7, "Goose": each key fades, is taken away, and is written at rates of its own.

    .. math::
        r_t &= W_r x_t + b_r, \qquad k_t = W_k x_t + b_k, \qquad v_t = W_v x_t + b_v \\
        w_t &= \exp(-e^{-1/2}\, \sigma(W_2 \tanh(W_1 x_t) + b_w)), \qquad
        a_t = \sigma(A_2 A_1 x_t + b_a) \\
        \hat\kappa_t &= \kappa_t / \sqrt{\kappa_t^\top \kappa_t + 10^{-6}}, \qquad
        \kappa_t = \xi \odot k_t, \qquad
        \tilde k_t = (1 + \alpha \odot (a_t - 1)) \odot k_t \\
        S_t &= (\mathrm{diag}(w_t) - (a_t \odot \hat\kappa_t)\, \hat\kappa_t^\top)\, S_{t-1}
        + \tilde k_t v_t^\top \\
        h_t &= S_t^\top r_t

    for each head. S is the transpose of the paper's.

    Differs from the paper in three places: the biases of r, k and v, which start at zero; the
    :math:`10^{-6}`, without which a :math:`\kappa` near zero has no derivative; and what its block
    has around the cell, the shift of tokens and the values of the first layer before, a norm after
    and a bonus and a gated branch beside, is not part of it. The start is that of the published
    code, for a first layer.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: :math:`W_v`, (H, I).
        weight_qk: :math:`W_r` and :math:`W_k`, (2*N*K, I).
        weight_w1: :math:`W_1`, (R, I).
        weight_w2: :math:`W_2`, (N*K, R).
        bias_w: :math:`b_w`, (N*K,).
        weight_a1: :math:`A_1`, (R, I).
        weight_a2: :math:`A_2`, (N*K, R).
        bias_a: :math:`b_a`, (N*K,).
        xi: (N*K,).
        alpha: (N*K,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted, which is 64
            there.
        rank: Of the products that make w and a, R. In the paper 64 for 768 units.
        options: ``bias``, of r, k and v, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or another size is below 1.

    References:
        Peng et al., 2025, "RWKV-7 'Goose' with Expressive Dynamic State Evolution",
        arXiv:2503.14456.
    """

    key_gates = ("w", "a")
    weight_a1: Tensor
    weight_a2: Tensor
    bias_a: Tensor
    xi: Tensor
    alpha: Tensor

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries and keys, how they fade, and at which rates they are taken away."""
        super().add_parameters(parameter)
        keys = self.num_heads * self.key_size
        self.weight_a1 = parameter(self.rank, self.input_size)
        self.weight_a2 = parameter(keys, self.rank)
        self.bias_a = parameter(keys)
        self.xi, self.alpha = parameter(keys), parameter(keys)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The published code's start for a first layer, whose rates are spread over the keys."""
        super().reset_parameters()
        bound = 0.5 * self.input_size**-0.5
        r, k = self.learned("weight_qk").chunk(2)
        for weight, scale in ((self.learned("weight_ih"), 1), (r, 1), (k, 0.1)):
            nn.init.uniform_(weight, -scale * bound, scale * bound)
        keys = self.num_heads * self.key_size
        for name in ("weight_w2", "weight_a2"):  # products of zeros, but for the biases
            weight = initializers.orthogonal_(self.learned(name), 1)
            weight.mul_(0.1 * max(1, keys / self.rank) ** 0.5)
        across = torch.linspace(-0.5, 0.5, keys, dtype=torch.float64)
        within = torch.linspace(-1, 1, self.key_size, dtype=torch.float64).repeat(self.num_heads)
        within = within * within.abs()
        self.learned("bias_w").copy_(6 * across + 2.5 * within - 2.5)
        self.learned("bias_a").copy_(0.4 * across + 0.3 * within - 0.19)
        self.learned("xi").copy_(0.71 - 0.1 * across)
        nn.init.constant_(self.learned("alpha"), 1.02)

    def project(self, x: Tensor) -> Tensor:
        """What the base projects, and the arguments of w and a."""
        a = F.linear(F.linear(x, self.weight_a1), self.weight_a2, self.bias_a)
        return torch.cat([super().project(x), self.fading(x), a], -1)

    def access(self, wx: Tensor) -> Access:
        """The equations of r, k, v, w and a."""
        at, sizes = self.parts(wx), (self.num_heads, self.key_size)
        xi, alpha = self.xi.unflatten(0, sizes), self.alpha.unflatten(0, sizes)
        log_w, a = -math.exp(-0.5) * torch.sigmoid(at.w), self.gate(at.a)
        kappa = unit(xi * at.k)
        k = at.k * (1 + alpha * (a - 1))
        # kappa finds what was there before it faded; w is above 0.54
        return Access(at.q, k, at.v, log_w, erase_q=kappa * torch.exp(-log_w), erase_k=a * kappa)
