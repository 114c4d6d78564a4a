"""Recurrences with highways: through several layers in one step, and past a layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.checks import check_number
from seqnets.typing import State


class RecurrentHighwayCell(GatedCell):
    r"""Recurrent highway network: several layers deep from one step to the next.

    .. math::
        h_\ell &= \tanh([W_h x_t + b_h]_{\ell = 1} + R_{h\ell}\, s_{\ell-1} + d_{h\ell}) \\
        t_\ell &= \sigma([W_t x_t + b_t]_{\ell = 1} + R_{t\ell}\, s_{\ell-1} + d_{t\ell}) \\
        s_\ell &= t_\ell \odot h_\ell + (1 - t_\ell) \odot s_{\ell-1},
        \qquad s_0 = h_{t-1}, \quad h_t = s_L

    As in the paper, with the carry gate coupled to the transform gate; the input enters the first
    layer alone.

    State: ``(h,)``, (B, H). Output: ``h``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        depth: Layers in a step, L, at least 1.
        transform_bias: Where the transform gates' biases start: below 0 they start by carrying.
            Without biases it has no effect.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``depth`` is below 1, or ``transform_bias`` is no finite number.
        DtypeError: ``depth`` is no integer.

    References:
        Zilly et al., 2017, "Recurrent Highway Networks", arXiv:1607.03474.
    """

    gates = ("h", "t")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        depth: int = 3,
        transform_bias: float = -2.0,
        **options: Any,
    ) -> None:
        self.depth = check_size(self, "depth", depth)  # read by super().__init__
        self.recurrent = tuple(  # type: ignore[misc]  # each cell has as many as it is deep
            f"{gate}{layer}" for layer in range(1, depth + 1) for gate in self.gates
        )
        check_number(self._name, transform_bias=transform_bias)
        self.transform_bias = transform_bias
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, then the transform gates' biases."""
        super().reset_parameters()
        if self.bias_hh is not None:
            biases = self.learned("bias_hh").unflatten(0, (self.depth, 2, -1))
            biases[:, 1].fill_(self.transform_bias)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above: a product for each layer."""
        (s,) = state
        w = self.split(wx)
        for layer in range(1, self.depth + 1):
            h, t = self.recur(s, f"h{layer}", f"t{layer}")
            if layer == 1:
                h, t = w.h + h, w.t + t
            s = s + self.gate(t) * (self.candidate(h) - s)
        return (s,)


class IntersectionRNNCell(GatedCell):
    r"""Intersection network: gated in time and in depth, so that deep ones are easy to train.

    .. math::
        p_t &= \mathrm{ReLU}(W_p x_t + b_p + U_p h_{t-1} + d_p) \\
        n_t &= \tanh(W_n x_t + b_n + U_n h_{t-1} + d_n) \\
        g_t &= \sigma(W_g x_t + b_g + U_g h_{t-1} + d_g) \\
        k_t &= \sigma(W_k x_t + b_k + U_k h_{t-1} + d_k) \\
        y_t &= g_t \odot x_t + (1 - g_t) \odot p_t \\
        h_t &= k_t \odot h_{t-1} + (1 - k_t) \odot n_t

    As in the paper, which calls it +RNN: :math:`y_t` carries the input itself, so that I must be H.

    State: ``(y, h)``, (B, H) each; y is not read back. Output: ``y``.

    References:
        Collins et al., 2017, "Capacity and Trainability in Recurrent Neural Networks",
        arXiv:1611.09913.
    """

    gates = ("p", "n", "g", "k")
    states = ("y", "h")
    output_only = True
    square = True
    keeping = ("k",)

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` by gate, then the input itself."""
        return torch.cat([super().project(x), x], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        _, h = state
        gates, x = wx.split([wx.shape[-1] - self.hidden_size, self.hidden_size], -1)
        w, u = self.split(gates), self.recur(h)
        p = torch.relu(w.p + u.p)
        n = self.candidate(w.n + u.n)
        y = p + self.gate(w.g + u.g) * (x - p)
        return y, n + self.gate(w.k + u.k) * (h - n)
