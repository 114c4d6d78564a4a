"""Convolutions before a recurrent layer: over time, or over the frames of a video."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.convolutional import height_and_width
from seqnets.checks import is_whole
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.checks import check_is_layer
from seqnets.layers.lengths import checked_lengths, divided, without_padding


class ConvFront1d(nn.Module):
    """Convolutions over time, of features or of raw samples.

    Each is followed by an activation. A step of the output stands for ``stride`` steps of the
    input: T becomes ceil(T / stride), and lengths likewise. Padding is zero for every convolution,
    as are the steps before the first one, and whatever it holds changes nothing.

    Args:
        input_size: Features of the input, I; 1 for raw samples.
        channels: Features that each convolution gives, from the first one on.
        kernel_size: Steps that each of them sees; or of each.
        stride: How many steps apart its outputs are; or of each.
        causal: Whether an output sees the step that it begins at and those before; else as many
            before as after.
        activation: Makes what follows each convolution.

    Raises:
        ConfigError: A size is no integer from 1, or lists disagree in length.

    Example:
        >>> front = ConvFront1d(1, [32, 64], kernel_size=[10, 5], stride=[5, 2])
        >>> net = Fronted(front, Recurrent(cells.GRUCell(64, 128)))
        >>> y, state = net(torch.randn(4, 16000, 1))  # y: (4, 1600, 128)
    """

    convolutions: Any

    def __init__(
        self,
        input_size: int,
        channels: int | Sequence[int],
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        *,
        causal: bool = True,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.input_size, self.causal = input_size, causal
        widths, kernels, strides = _listed("ConvFront1d", channels, kernel_size, stride)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, size, kernel, step)
            for width, size, kernel, step in zip(
                [input_size, *widths], widths, kernels, strides, strict=False
            )
        )
        self.activation = activation()
        self.output_size, self.stride = widths[-1], math.prod(strides)
        self.per_step = all(kernel == 1 for kernel in kernels) and self.stride == 1

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """Valid steps of each row's output, (B,), from those of its input."""
        return divided(lengths, self.stride)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Outputs, (B, ceil(T / stride), last of ``channels``), and their lengths.

        Args:
            x: Inputs, (B, T, I).
            lengths: Valid steps of each row, (B,); all T if omitted.

        Raises:
            ShapeError: ``x`` is not (B, T, I).
        """
        if x.dim() != 3 or x.shape[2] != self.input_size:
            raise ShapeError(
                f"ConvFront1d: input has shape {tuple(x.shape)}, expected (B, T, I) with "
                f"I = {self.input_size}."
            )
        if not x.shape[1]:
            return x.new_zeros(x.shape[0], 0, self.output_size), lengths
        x = without_padding(x, lengths)
        for convolution in self.convolutions:
            kernel, stride = convolution.kernel_size[0], convolution.stride[0]
            before = kernel - 1 if self.causal else (kernel - 1) // 2
            wide = F.pad(x.transpose(1, 2), (before, kernel - 1 - before))
            lengths = divided(lengths, stride)
            x = without_padding(self.activation(convolution(wide)).transpose(1, 2), lengths)
        return x, lengths


class ConvFront2d(nn.Module):
    """Convolutions over each frame of a video, and the mean over what is left of its area.

    The mean says what is seen and not where: for that, name the ``frame``, and every place that is
    left gives features of its own.

    Args:
        input_channels: Channels of a frame, C.
        channels: Features that each convolution gives; the last one's are the output's, F, or those
            of each place.
        kernel_size: Height and width that each of them sees; or of each.
        stride: How many pixels apart its outputs are; or of each.
        frame: Height and width, for features of each place; their mean if omitted.
        activation: Makes what follows each convolution.

    Raises:
        ConfigError: A size is no integer from 1, or lists disagree in length.

    Example:
        >>> net = Fronted(ConvFront2d(3, [16, 32, 64]), Recurrent(cells.LSTMCell(64, 128)))
        >>> y, state = net(torch.randn(2, 50, 3, 32, 32))  # y: (2, 50, 128)

    References:
        Donahue et al., 2015, "Long-term Recurrent Convolutional Networks for Visual Recognition and
        Description", arXiv:1411.4389.
    """

    per_step = True

    def __init__(
        self,
        input_channels: int,
        channels: int | Sequence[int],
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 2,
        *,
        frame: Sequence[int] | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.frame = None if frame is None else height_and_width("ConvFront2d", frame)
        widths, kernels, strides = _listed("ConvFront2d", channels, kernel_size, stride)
        sides: tuple[int, ...] = self.frame or ()
        for kernel, step in zip(kernels, strides, strict=True):
            sides = tuple((side + 2 * (kernel // 2) - kernel) // step + 1 for side in sides)
        self.output_size = widths[-1] * math.prod(sides)
        self.convolutions = nn.Sequential()
        for width, size, kernel, step in zip(
            [input_channels, *widths], widths, kernels, strides, strict=False
        ):
            self.convolutions.append(nn.Conv2d(width, size, kernel, step, padding=kernel // 2))
            self.convolutions.append(activation())

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """The same: a step is a frame."""
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Features of each frame, (B, T, F), zero past each row's end, and the lengths.

        Args:
            x: Frames, (B, T, C, height, width).
            lengths: Valid frames of each row, (B,); all T if omitted.

        Raises:
            ShapeError: ``x`` is not (B, T, C, height, width), or its frames are not of the size
                that was named.
        """
        if x.dim() != 5 or x.shape[2] != self.input_channels:
            raise ShapeError(
                f"ConvFront2d: input has shape {tuple(x.shape)}, expected (B, T, C, height, width) "
                f"with C = {self.input_channels}."
            )
        if self.frame not in (None, tuple(x.shape[3:])):
            raise ShapeError(
                f"ConvFront2d: a frame is {tuple(x.shape[3:])}, expected {self.frame}, the `frame` "
                f"that it was built with."
            )
        B, T = x.shape[:2]
        frames = without_padding(x, lengths).flatten(0, 1)
        y = self.convolutions(frames)
        y = y.mean((2, 3)) if self.frame is None else y.flatten(1)
        return without_padding(y.unflatten(0, (B, T)), lengths), lengths


class Fronted(nn.Module):
    """A recurrent layer over what a front makes of the input, with the lengths that follow from it.

    A front that sees several steps at once sees none before the first one of a call: sequences come
    whole, without resets, and not step by step.

    Args:
        front: Called with inputs and lengths, gives features and lengths: :class:`ConvFront1d`,
            :class:`ConvFront2d`, or a module of the user's with an ``output_size``; with
            ``per_step = True`` if it treats every step on its own.
        layer: The recurrent layer.

    Raises:
        ConfigError: ``layer`` is no recurrent layer.
        ShapeError: It does not take as many features as ``front`` gives.
    """

    front: Any
    layer: Any

    def __init__(self, front: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        check_is_layer("Fronted", layer)
        self.front, self.layer = front, layer
        if self.front.output_size != self.layer.input_size:
            raise ShapeError(
                f"Fronted: the front gives {counted(self.front.output_size, 'feature')} and the "
                f"layer takes {self.layer.input_size}, expected the same number."
            )

    @property
    def input_size(self) -> int:
        """Features of the input, I."""
        return self.front.input_size

    @property
    def output_size(self) -> int:
        """Features of the output."""
        return self.layer.output_size

    @property
    def per_step(self) -> bool:
        """Whether the front treats every step on its own."""
        return getattr(self.front, "per_step", False)

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """Valid steps of each row's output, (B,), from those of its input."""
        return self.front.lengths_after(lengths)

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """What the layer makes of the front's output, and its state.

        Args:
            x: Inputs, as the front takes them.
            state: The layer's state before the first step; its initial state if omitted.
            lengths: Valid steps of each row of the input, (B,); all T if omitted.
            resets: Where a new sequence begins inside a row, (B, T) boolean.

        Raises:
            ConfigError: ``resets`` came, and the front sees several steps at once.
        """
        if resets is not None:
            self._check_front("resets")
        x, lengths = self.front(x, checked_lengths("Fronted", lengths, x))
        return self.layer(x, state, lengths, resets)

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of the front and the layer.

        Raises:
            ConfigError: The front sees several steps at once.
        """
        self._check_front("step")
        y, _ = self.front(x[:, None])
        return self.layer.step(y[:, 0], state, resets)

    def _check_front(self, what: str) -> None:
        if not self.per_step:
            raise ConfigError(
                f"Fronted: {what} came, but {type(self.front).__name__} sees several steps at "
                f"once.\n  Give it each sequence whole, in a row of its own."
            )


def _listed(
    owner: str, channels: int | Sequence[int], *others: int | Sequence[int]
) -> list[list[int]]:
    """Channels, and what else each convolution has, as lists."""
    widths = [channels] if isinstance(channels, int) else list(channels)
    lists = [widths, *([o] * len(widths) if isinstance(o, int) else list(o) for o in others)]
    for name, values in zip(("channels", "kernel_size", "stride"), lists, strict=True):
        whole = all(is_whole(v) and v > 0 for v in values)
        if not whole or not values or len(values) != len(widths):
            raise ConfigError(
                f"{owner}: {name} is {values}, expected one integer from 1 for each of "
                f"{max(len(widths), 1)} convolutions."
            )
    return lists
