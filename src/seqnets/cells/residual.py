"""Residual networks over time: a step adds to the memory what two layers make of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.typing import State


class RRUCell(GatedCell):
    r"""Residual recurrent unit: no gates, but two layers whose result is added to the memory.

    .. math::
        a_t &= W x_t + b + U h_{t-1} + d \\
        j_t &= \mathrm{ReLU}\Bigl(a_t / \sqrt{\frac{1}{M} \sum_k a_{t,k}^2 + 10^{-6}}
        \Bigr) \\
        y_t &= W_y j_t + b_y \\
        h_t &= \tfrac{3}{2} \sigma(s) \odot h_{t-1} + z \odot (W_h j_t + b_h)

    As in the authors' code with one hidden layer; dropout of j is left out. As there, s starts
    where the memory is kept by 0.95, z at zero, and the matrices are Xavier's. There a memory
    starts with :math:`\sqrt H / 4` in its first unit; here at zero, as in other cells.

    State: ``(y, h)``, (B, H) each; y is not read back. Output: ``y``.

    Attributes:
        weight_ih: W, (M, I).
        weight_hh: U, (M, H).
        weight_y: :math:`W_y`, (H, M).
        weight_h: :math:`W_h`, (H, M).
        bias_y: (H,), or None.
        bias_h: (H,), or None.
        s: (H,).
        z: (H,).

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        inner_size: Units of the layer within, M; 2 (I + H) if omitted, as in the authors' code.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``inner_size`` is below 1.
        DtypeError: ``inner_size`` is no integer.

    References:
        Zakovskis et al., 2021, "Gates Are Not What You Need in RNNs", arXiv:2108.00527.
    """

    gates = ("j",)
    states = ("y", "h")
    output_only = True
    per_unit = ("s", "z")
    weight_y: Tensor
    weight_h: Tensor
    bias_y: Tensor | None
    bias_h: Tensor | None
    s: Tensor
    z: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, *, inner_size: int | None = None, **options: Any
    ) -> None:
        if inner_size is None:
            sizes = {"input_size": input_size, "hidden_size": hidden_size}
            inner_size = 2 * sum(check_size(self, name, size) for name, size in sizes.items())
        self.inner_size = check_size(self, "inner_size", inner_size)  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of W and of U."""
        return self.inner_size, features

    def add_parameters(self, parameter: Any) -> None:
        """What the layer within gives to the output and to the memory."""
        for name in ("y", "h"):
            bias = None if self.bias_ih is None else parameter(self.hidden_size)
            self.register_parameter(f"weight_{name}", parameter(self.hidden_size, self.inner_size))
            self.register_parameter(f"bias_{name}", bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier for all matrices, zero for biases and z, and a memory that is kept by 0.95."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_hh"), 1)
        initializers.xavier_(self.learned("weight_y"), 1)
        initializers.xavier_(self.learned("weight_h"), 1)
        nn.init.constant_(self.learned("s"), initializers.logit(0.95 / 1.5))

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        _, h = state
        a = wx + self.recur(h).j
        j = F.relu(a * torch.rsqrt(a.square().mean(-1, keepdim=True) + 1e-6))
        y = F.linear(j, self.weight_y, self.bias_y)
        kept = 1.5 * torch.sigmoid(self.s) * h
        return y, kept + self.z * F.linear(j, self.weight_h, self.bias_h)
