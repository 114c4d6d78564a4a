"""Recurrences over frames of video or radar: convolutions where other cells have matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from seqnets.cells.checks import check_size
from seqnets.cells.gated import GatedCell
from seqnets.cells.gru import OriginalGRUCell
from seqnets.cells.lstm import LSTMCell, PeepholeLSTMCell
from seqnets.checks import is_whole
from seqnets.errors import ConfigError


class ConvolutionalCell(GatedCell):
    """Turns a gated cell into one over frames: its weights are kernels, shared by all places.

    It is listed before the cell whose equation it uses: ``class ConvLSTMCell(ConvolutionalCell,
    LSTMCell)``. Inputs and states are flattened frames, in the order of ``Tensor.flatten`` of
    (C, height, width), so that sizes count channels times places. Beyond its border a frame is
    zero. A row, (width,), or a volume, (depth, height, width), is a frame too.
    :class:`seqnets.layers.Video` takes frames as they are.

    Attributes:
        weight_ih: (G*C', C, kernel, kernel), for C channels of the input and C' of the state; with
            one ``kernel`` for a row, and three for a volume.
        weight_hh: (G*C', C', kernel, kernel), likewise.
        bias_ih: One number a channel, (G*C',), or None; likewise ``bias_hh``.
        channels_in: C.
        channels_hidden: C'.

    Args:
        input_size: Features of the input, I: C times height times width.
        hidden_size: Units, H: C' times height times width.
        frame: Height and width; or the one side of a row, or the three of a volume.
        kernel_size: Height and width of the kernels, odd.
        options: What the cell takes beyond these.

    Raises:
        ConfigError: A size does not count whole frames, or the kernel has no centre.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        frame: Sequence[int] = (1, 1),
        kernel_size: int = 3,
        **options: Any,
    ) -> None:
        self.frame = sides_of(self._name, frame)
        self.kernel_size = kernel_size
        if check_size(self, "kernel_size", kernel_size) % 2 == 0:
            raise ConfigError(
                f"{self._name}: kernel_size is {kernel_size}, expected an odd number.\n"
                f"  A kernel needs a centre, for frames to keep their size."
            )
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if check_size(self, name, size) % (places := math.prod(self.frame)):
                raise ConfigError(
                    f"{self._name}: {name} is {size}, expected a multiple of {places}, "
                    f"the places of a frame {self.frame}.\n"
                    f"  It counts channels times places; {self._name}.over takes channels."
                )
        super().__init__(input_size, hidden_size, **options)

    @classmethod
    def over(
        cls, channels_in: int, channels_hidden: int, frame: Sequence[int], **options: Any
    ) -> Self:
        """A cell for these numbers of channels.

        Args:
            channels_in: Channels of the input, C.
            channels_hidden: Channels of the state, C'.
            frame: Height and width; or the one side of a row, or the three of a volume.
            options: ``kernel_size``, and what else the cell takes.

        Example:
            >>> cell = ConvLSTMCell.over(1, 16, frame=(64, 64), kernel_size=5)
        """
        places = math.prod(sides_of(cls.__name__, frame))
        return cls(channels_in * places, channels_hidden * places, frame=frame, **options)

    @property
    def channels_in(self) -> int:
        """Channels of the input, C."""
        return self._channels(self.input_size)

    @property
    def channels_hidden(self) -> int:
        """Channels of the state, C'."""
        return self._channels(self.hidden_size)

    def block_shape(self, features: int) -> tuple[int, ...]:
        """One gate's kernels over frames of so many features."""
        kernel = (self.kernel_size,) * len(self.frame)
        return self.channels_hidden, self._channels(features), *kernel

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The frames convolved, for any leading shape in one call: (..., I) to (..., G*H)."""
        frames = x.reshape(-1, weight.shape[1], *self.frame)
        convolve = _CONVOLUTIONS[len(self.frame)]
        convolved = convolve(frames, weight, bias, padding=self.kernel_size // 2)
        return convolved.reshape(*x.shape[:-1], math.prod(convolved.shape[1:]))

    def _channels(self, features: int) -> int:
        return features // math.prod(self.frame)


class ConvLSTMCell(ConvolutionalCell, LSTMCell):
    r"""LSTM over frames, whose products are convolutions.

    .. math::
        i_t &= \sigma(W_i * x_t + b_i + U_i * h_{t-1} + d_i) \\
        f_t &= \sigma(W_f * x_t + b_f + U_f * h_{t-1} + d_f) \\
        g_t &= \tanh(W_g * x_t + b_g + U_g * h_{t-1} + d_g) \\
        o_t &= \sigma(W_o * x_t + b_o + U_o * h_{t-1} + d_o) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Differs from the paper in one place: there the gates see the memory too, as those of
    :class:`PeepholeConvLSTMCell` do.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    Args:
        input_size: Features of the input, I: channels times height times width.
        hidden_size: Units, H: channels of the state times height times width.
        frame: Height and width; or the one side of a row, or the three of a volume.
        kernel_size: Height and width of the kernels, odd.
        options: ``forget_bias``, ``bias``, ``device`` and ``dtype``, as for :class:`LSTMCell`.

    References:
        Shi et al., 2015, "Convolutional LSTM Network: A Machine Learning Approach for
        Precipitation Nowcasting", arXiv:1506.04214.
    """

    projects = False


class PeepholeConvLSTMCell(ConvolutionalCell, PeepholeLSTMCell):
    r"""LSTM over frames whose gates see the memory, each place by weights of its own.

    .. math::
        i_t &= \sigma(W_i * x_t + b_i + U_i * h_{t-1} + d_i + p_i \odot c_{t-1}) \\
        f_t &= \sigma(W_f * x_t + b_f + U_f * h_{t-1} + d_f + p_f \odot c_{t-1}) \\
        g_t &= \tanh(W_g * x_t + b_g + U_g * h_{t-1} + d_g) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        o_t &= \sigma(W_o * x_t + b_o + U_o * h_{t-1} + d_o + p_o \odot c_t) \\
        h_t &= o_t \odot \tanh(c_t)

    As in the paper, whose peepholes have one number for each channel and place. They start at zero,
    and once they have learned, a moved input is no longer a moved output.

    The arguments are those of :class:`ConvLSTMCell`.

    State: ``(h, c)``, (B, H) each. Output: ``h``.

    References:
        Shi et al., 2015, "Convolutional LSTM Network: A Machine Learning Approach for
        Precipitation Nowcasting", arXiv:1506.04214.
    """

    projects = False


class ConvGRUCell(ConvolutionalCell, OriginalGRUCell):
    r"""GRU over frames, whose products are convolutions; reset before the product.

    .. math::
        r_t &= \sigma(W_r * x_t + b_r + U_r * h_{t-1} + d_r) \\
        z_t &= \sigma(W_z * x_t + b_z + U_z * h_{t-1} + d_z) \\
        n_t &= \tanh(W_n * x_t + b_n + U_n * (r_t \odot h_{t-1}) + d_n) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Differs from the paper in a letter: its :math:`z` is :math:`1 - z` here, as in
    :class:`OriginalGRUCell`, which is the same up to the sign of :math:`W_z`, :math:`U_z` and the
    biases. The paper has none of these last.

    State: ``(h,)``, (B, H). Output: ``h``.

    Args:
        input_size: Features of the input, I: channels times height times width.
        hidden_size: Units, H: channels of the state times height times width.
        frame: Height and width; or the one side of a row, or the three of a volume.
        kernel_size: Height and width of the kernels, odd.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    References:
        Ballas et al., 2016, "Delving Deeper into Convolutional Networks for Learning Video
        Representations", arXiv:1511.06432.
    """


_CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
"""By the number of a frame's sides."""


def sides_of(owner: str, frame: Sequence[int]) -> tuple[int, ...]:
    """A frame's sides as a tuple; raise unless they are one to three positive integers."""
    sides = tuple(frame) if isinstance(frame, Sequence) else ()
    if len(sides) not in _CONVOLUTIONS or not all(is_whole(side) and side > 0 for side in sides):
        raise ConfigError(
            f"{owner}: frame is {frame!r}, expected height and width, two positive integers; or "
            f"one for a row, three for a volume."
        )
    return sides
