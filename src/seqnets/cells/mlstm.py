"""LSTM with exponential gates and a matrix memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.matrix_memory import Access, MatrixMemoryCell


class MLSTMCell(MatrixMemoryCell):
    r"""LSTM whose memory is a matrix for each head, read and written by keys (mLSTM).

    .. math::
        q_t &= W_q x_t + b_q, \qquad k_t = (W_k x_t + b_k) / \sqrt K, \qquad v_t = W_v x_t + b_v \\
        i_t &= \exp(\tilde i_t), \qquad \tilde i_t = w_i^\top x_t + b_i \\
        f_t &= \sigma(\tilde f_t), \qquad \tilde f_t = w_f^\top x_t + b_f \\
        C_t &= f_t\, C_{t-1} + i_t\, k_t v_t^\top \\
        n_t &= f_t\, n_{t-1} + i_t\, k_t \\
        h_t &= \sigma(W_o x_t + b_o) \odot C_t^\top q_t \,/\, \max(|n_t^\top q_t|, 1)

    for each head, but for the last product by the gate o, which has a number for each unit. The
    state holds C and n times :math:`\exp(-m_t)`, :math:`m_t = \max(\log f_t + m_{t-1}, \tilde i_t,
    0)`, so that h is the same and nothing overflows.

    Differs from the paper in two places: :math:`m_t` is not below 0, where :math:`\exp(-m_t)` could
    overflow; and of its two forget gates this has the logistic one. C is its transpose. As in the
    published code, :math:`w_i` and :math:`w_f` start at zero, :math:`b_i` is drawn with a standard
    deviation of 0.1, and :math:`b_f` is spread from 3 to 6 over the heads. What its block has
    around the cell, a convolution before, a group norm after and a gated branch beside, is not
    part of it.

    State: ``(h, C, n, m)``, (B, H), (B, N*K*V), (B, N*K) and (B, N); h is not read back. Output:
    ``h``.

    Attributes:
        weight_ih: Of v and o, (2H, I).
        weight_qk: Of q and k, (2*N*K, I).
        weight_heads: :math:`w_i` and :math:`w_f`, (2N, I).
        bias_heads: :math:`b_i` and :math:`b_f`, (2N,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; as in the paper H/N if omitted.
        options: ``bias``, of all but i and f, ``device`` and ``dtype``, as for every
            :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, or ``key_size`` is below 1.

    References:
        Beck et al., 2024, "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517.
    """

    gates = ("v", "o")
    head_gates = ("i", "f")
    states = ("h", "C", "n", "m")
    normalised = True

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier, zero for the biases, and the published code's start for i and f."""
        super().reset_parameters()
        nn.init.zeros_(self.learned("weight_heads"))
        nn.init.normal_(self.bias_of("i"), std=0.1)
        self.bias_of("f").copy_(torch.linspace(3, 6, self.num_heads))

    def access(self, wx: Tensor) -> Access:
        """The equations of q, k, v, i and f."""
        at = self.parts(wx)
        k = at.k * self.key_size**-0.5
        return Access(at.q, k, at.v, log_decay=F.logsigmoid(at.f), log_write=at.i)

    def readout(self, found: Tensor, wx: Tensor) -> Tensor:
        """What is found, through the output gate."""
        return (self.gate(self.parts(wx).o) * found).flatten(-2)
