"""Simple recurrent units: a gated memory, and a highway around it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from seqnets.cells.fitting import FittingCell
from seqnets.checks import check_number
from seqnets.errors import ConfigError
from seqnets.typing import State


class SRUCell(FittingCell):
    r"""Simple recurrent unit: a forget gate for the memory, and a highway around it.

    .. math::
        f_t &= \sigma(W_f x_t + b_f) \\
        r_t &= \sigma(W_r x_t + b_r) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot (W_n x_t + b_n) \\
        h_t &= r_t \odot c_t + (1 - r_t) \odot \alpha x_t, \qquad \alpha = \sqrt{1 + 2 e^{b}}

    with b the ``highway_bias``, at which :math:`b_r` starts: :math:`\alpha` keeps the variance of
    the outputs that of the inputs. Where I is not H, a product :math:`W_x x_t` takes the place of
    :math:`x_t`.

    Differs from the paper in two places: there the gates see the last memory too, which is
    :class:`PeepholeSRUCell` and no longer linear in the state; and there is no :math:`b_n`, which
    starts at zero here. The weights start by Xavier's rule, as those of every cell. The paper's
    first version squashes the memory where it is output: ``Activations(cell, squash="tanh")``.

    State: ``(h, c)``, (B, H) each; h is not read back. Output: ``h``.

    Attributes:
        weight_x: :math:`W_x`, (H, I), or None if I is H.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        highway_bias: What :math:`b_r` starts at, b; below 0 more of the input passes.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``highway_bias`` is no finite number, or is not 0 without biases.

    References:
        Lei et al., 2018, "Simple Recurrent Units for Highly Parallelizable Recurrence",
        arXiv:1709.02755.
    """

    gates = ("n", "f", "r")
    recurrent = ()
    states = ("h", "c")
    output_only = True
    keeping = ("f",)

    def __init__(
        self, input_size: int, hidden_size: int, *, highway_bias: float = 0.0, **options: Any
    ) -> None:
        check_number(self._name, highway_bias=highway_bias)
        if highway_bias and not options.get("bias", True):
            raise ConfigError(
                f"{self._name}: highway_bias is {highway_bias}, expected 0 where bias=False."
            )
        self.highway_bias = highway_bias  # read by super().__init__
        super().__init__(input_size, hidden_size, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier for the weights, and the bias of the highway's gate."""
        super().reset_parameters()
        if self.bias_ih is not None:
            self.split(self.learned("bias_ih")).r.fill_(self.highway_bias)

    def squash(self, a: Tensor) -> Tensor:
        """The memory is output as it is."""
        return a

    def opened(self, f: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The gates, of the input's products and the last memory."""
        return self.gate(f), self.gate(r)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        _, c = state
        n, f, r, x = wx.chunk(4, -1)
        f, r = self.opened(f, r, c)
        c = n + f * (c - n)
        alpha = math.sqrt(1 + 2 * math.exp(self.highway_bias))
        return r * self.squash(c) + (1 - r) * (alpha * x), c


class PeepholeSRUCell(SRUCell):
    r"""Simple recurrent unit as published: its gates see the last memory, each unit its own.

    .. math::
        f_t &= \sigma(W_f x_t + b_f + v_f \odot c_{t-1}) \\
        r_t &= \sigma(W_r x_t + b_r + v_r \odot c_{t-1}) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot (W_n x_t + b_n) \\
        h_t &= r_t \odot c_t + (1 - r_t) \odot \alpha x_t, \qquad \alpha = \sqrt{1 + 2 e^{b}}

    As in the paper, but for :math:`b_n`, and that the weights start by Xavier's rule, :math:`v` at
    zero. The rest as in :class:`SRUCell`.

    State: ``(h, c)``, (B, H) each; h is not read back. Output: ``h``.

    References:
        Lei et al., 2018, "Simple Recurrent Units for Highly Parallelizable Recurrence",
        arXiv:1709.02755.
    """

    per_unit = ("v_f", "v_r")
    v_f: Tensor
    v_r: Tensor

    def opened(self, f: Tensor, r: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The gates, of the input's products and the last memory."""
        return super().opened(f + self.v_f * c, r + self.v_r * c, c)
