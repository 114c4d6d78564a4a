"""Hierarchically gated networks: memories that forget no faster than a bound."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.gated import GatedCell
from seqnets.cells.matrix_memory import Access, MatrixMemoryCell
from seqnets.checks import check_number
from seqnets.typing import State


class _BoundedCell(GatedCell):
    """What both share: a bound on how fast a memory fades, and SiLU of what is new."""

    beta: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, lower_bound: float = 0.5, **options: Any
    ) -> None:
        check_number(self._name, above=0, below=1, lower_bound=lower_bound)
        self.lower_bound = lower_bound  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As cells of this kind, and the bound."""
        super().reset_parameters()
        self.learned("beta").fill_(initializers.logit(self.lower_bound))

    def candidate(self, a: Tensor) -> Tensor:
        """SiLU."""
        return F.silu(a)


class HGRNCell(_BoundedCell):
    r"""Hierarchically gated network: no unit forgets faster than a bound of its own.

    .. math::
        f_t &= \gamma + (1 - \gamma) \odot \sigma(W_f x_t + b_f), \qquad \gamma = \sigma(\beta) \\
        c_t &= \mathrm{silu}(W_c x_t + b_c) \\
        h_t &= f_t \odot h_{t-1} + (1 - f_t) \odot c_t \\
        y_t &= \sigma(W_g x_t + b_g) \odot h_t

    In a deep network let the bound rise from layer to layer: the lower ones then forget, the upper
    ones remember.

    Differs from the paper in three places: the memory is real, where the paper's is turned by a
    complex number at every step; the norm and the matrix after the output gate are left out; and
    each cell learns its bound :math:`\gamma` alone, where the paper's add up over the layers.

    State: ``(y, h)``, (B, H) each; y is not read back. Output: ``y``.

    Attributes:
        beta: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        lower_bound: Where :math:`\gamma` starts, between 0 and 1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``lower_bound`` is not between 0 and 1.

    References:
        Qin et al., 2023, "Hierarchically Gated Recurrent Neural Network for Sequence Modeling",
        arXiv:2311.04823.
    """

    gates = ("f", "c", "g")
    recurrent = ()
    states = ("y", "h")
    output_only = True
    keeping = ("f",)
    per_unit = ("beta",)

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equations above."""
        _, h = state
        bound = torch.sigmoid(self.beta)
        f = bound + (1 - bound) * self.gate(wx.f)
        c = self.candidate(wx.c)
        h = c + f * (h - c)
        return self.gate(wx.g) * h, h


class HGRN2Cell(_BoundedCell, MatrixMemoryCell):
    r"""Hierarchically gated network with a matrix memory: a key is what is not kept (HGRN2).

    .. math::
        f_t &= \gamma + (1 - \gamma) \odot \sigma(W_f x_t + b_f), \qquad \gamma = \sigma(\beta) \\
        i_t &= \mathrm{silu}(W_i x_t + b_i), \qquad o_t = \sigma(W_o x_t + b_o) \\
        S_t &= \mathrm{diag}(f_t)\, S_{t-1} + (1 - f_t)\, i_t^\top \\
        h_t &= S_t^\top o_t

    for each head. The matrix takes no more parameters than the vector of :class:`HGRNCell`. In a
    deep network let the bound rise from layer to layer, as there.

    Differs from the paper in two places: each cell learns its bound :math:`\gamma` alone, where the
    paper's bounds add up over the layers; and the norm and the matrix after are not part of it.

    State: ``(h, S)``, (B, H) and (B, N*K*V); h is not read back. Output: ``h``.

    Attributes:
        weight_ih: :math:`W_i`, (H, I).
        weight_qk: :math:`W_o` and :math:`W_f`, (2*N*K, I).
        beta: (N*K,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a gate of one head, K; as in the paper H/N if omitted.
        lower_bound: Where :math:`\gamma` starts, between 0 and 1.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, ``key_size`` is below 1, or ``lower_bound``
            is not between 0 and 1.

    References:
        Qin et al., 2024, "HGRN2: Gated Linear RNNs with State Expansion", arXiv:2404.07904.
    """

    gates = ("i",)

    def add_parameters(self, parameter: Any) -> None:
        """What makes the gates of keys, and their bound."""
        super().add_parameters(parameter)
        self.beta = parameter(self.num_heads * self.key_size)

    def access(self, wx: Tensor) -> Access:
        """The equations of o, f and i."""
        at, beta = self.parts(wx), self.beta.unflatten(0, (self.num_heads, self.key_size))
        log_above = F.logsigmoid(-beta) + F.logsigmoid(at.k)
        log_f = torch.logaddexp(F.logsigmoid(beta), log_above)
        return Access(self.gate(at.q), -torch.expm1(log_f), self.candidate(at.i), log_f)
