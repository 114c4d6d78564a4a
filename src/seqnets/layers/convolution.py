"""Convolutions before a recurrent layer: over time, or over the frames of a video."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.checks import check_count, check_flags, is_whole
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers.around import Around
from seqnets.layers.checks import check_is_layer, check_reads_no_times
from seqnets.layers.lengths import (
    checked_lengths,
    lengths_after,
    strided_lengths,
    without_padding,
)


class ConvFront1d(nn.Module):
    """Convolutions over time, of features or of raw samples, each followed by an activation.

    With the product of all strides, T becomes ceil(T / stride), and lengths likewise. Every
    convolution reads zeros past a row's end and before its first step: the content of padding
    never changes anything.

    Args:
        input_size: Features of the input, I; 1 for raw samples.
        channels: Output features of each convolution, first to last.
        kernel_size: Steps in each convolution's window: one number, or one per convolution.
        stride: Steps between outputs: one number, or one per convolution.
        causal: Whether the window of an output ends at its own step; else it is centred there.
        activation: Factory of the activation.

    Raises:
        ConfigError: A size is not a positive integer, or lists disagree in length.

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
        check_flags("ConvFront1d", causal=causal)
        check_count("ConvFront1d", input_size=input_size)
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
        return strided_lengths(lengths, self.stride)

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
            padded = F.pad(x.transpose(1, 2), (before, kernel - 1 - before))
            lengths = strided_lengths(lengths, stride)
            x = without_padding(self.activation(convolution(padded)).transpose(1, 2), lengths)
        return x, lengths


class ConvFront2d(nn.Module):
    """Convolutions over each frame of a video, then global average pooling.

    Pooling discards positions. With ``frame`` the feature map is flattened instead, so that every
    position keeps its own features.

    Args:
        input_channels: Channels of a frame, C.
        channels: Output channels of each convolution, first to last. The last one is the number of
            output features, F; with ``frame``, that of each position.
        kernel_size: Side of each convolution's window in pixels: one number, or one per
            convolution.
        stride: Pixels between outputs: one number, or one per convolution.
        frame: Height and width of a frame, to flatten the feature map; pooled if omitted.
        activation: Factory of the activation that follows each convolution.

    Raises:
        ConfigError: A size is not a positive integer, or lists disagree in length.

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
        check_count("ConvFront2d", input_channels=input_channels)
        self.input_channels = input_channels
        self.frame = None if frame is None else _height_and_width(frame)
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
        """Unchanged: each frame is one step."""
        return lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Features of each frame, (B, T, F), zero past each row's end, and the lengths.

        Args:
            x: Frames, (B, T, C, height, width).
            lengths: Valid frames of each row, (B,); all T if omitted.

        Raises:
            ShapeError: ``x`` is not (B, T, C, height, width), or its frames are not of the size
                ``frame``.
        """
        if x.dim() != 5 or x.shape[2] != self.input_channels:
            raise ShapeError(
                f"ConvFront2d: input has shape {tuple(x.shape)}, expected (B, T, C, height, width) "
                f"with C = {self.input_channels}."
            )
        if self.frame not in (None, tuple(x.shape[3:])):
            raise ShapeError(
                f"ConvFront2d: frames are {tuple(x.shape[3:])}, expected {self.frame}, the `frame` "
                f"that the layer was built with."
            )
        B, T = x.shape[:2]
        frames = without_padding(x, lengths).flatten(0, 1)
        y = self.convolutions(frames)
        y = y.mean((2, 3)) if self.frame is None else y.flatten(1)
        return without_padding(y.unflatten(0, (B, T)), lengths), lengths


class Fronted(Around):
    """A recurrent layer over the features that a front computes from the input.

    A front that mixes several steps keeps nothing between calls: it needs whole sequences, without
    resets, and cannot run step by step.

    Args:
        front: Maps inputs and lengths to features and lengths: :class:`ConvFront1d`,
            :class:`ConvFront2d`, or a module of your own with an ``output_size``, and
            ``per_step = True`` if it treats every step on its own.
        layer: The recurrent layer.

    Raises:
        ConfigError: ``layer`` is not a recurrent layer, ``front`` has no ``output_size``, or a cell
            over convolutions takes times (``timed``).
        ShapeError: ``front`` and ``layer`` disagree about the number of features.
    """

    front: Any

    def __init__(self, front: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        check_is_layer("Fronted", layer)
        if not hasattr(front, "output_size"):
            raise ConfigError(
                f"Fronted: front is {type(front).__name__}, expected a module with an output_size "
                f"that maps inputs and lengths to features and lengths.\n"
                f"  ConvFront1d and ConvFront2d are such modules, of convolutions."
            )
        if isinstance(front, (ConvFront1d, ConvFront2d)):
            check_reads_no_times("Fronted", layer, "a convolution's output")
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
    def per_step(self) -> bool:
        """Whether the front treats every step on its own."""
        return getattr(self.front, "per_step", False)

    def lengths_after(self, lengths: Tensor | None) -> Tensor | None:
        """Valid steps of each row's output, (B,), from those of its input."""
        return super().lengths_after(lengths_after(self.front, lengths))

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """The layer's outputs and state, computed from the front's features.

        Args:
            x: Inputs, as the front takes them.
            state: The layer's state before the first step; its initial state if omitted.
            lengths: Valid steps of each row of the input, (B,); all T if omitted.
            resets: Where a new sequence begins inside a row, (B, T) boolean.

        Raises:
            ConfigError: ``resets`` are given and the front mixes several steps.
        """
        if resets is not None:
            self._check_per_step("resets were given")
        x, lengths = self.front(x, checked_lengths("Fronted", lengths, x))
        return self.layer(x, state, lengths, resets)

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """One step of the front and the layer.

        Raises:
            ConfigError: The front mixes several steps.
        """
        self._check_per_step("step was called")
        y, _ = self.front(x[:, None])
        return self.layer.step(y[:, 0], state, resets)

    def _check_per_step(self, request: str) -> None:
        if not self.per_step:
            raise ConfigError(
                f"Fronted: {request}, but {type(self.front).__name__} mixes several steps.\n"
                f"  Give it each sequence whole, in a row of its own."
            )


def _height_and_width(frame: Sequence[int]) -> tuple[int, int]:
    """Height and width as a tuple; raise unless they are two positive integers."""
    sizes = tuple(frame) if isinstance(frame, Sequence) else ()
    if len(sizes) != 2 or not all(is_whole(size) and size > 0 for size in sizes):
        raise ConfigError(
            f"ConvFront2d: frame is {frame!r}, expected height and width, two positive integers."
        )
    return sizes


def _listed(
    owner: str, channels: int | Sequence[int], *others: int | Sequence[int]
) -> list[list[int]]:
    """Each option as a list with one entry per convolution."""
    widths = [channels] if isinstance(channels, int) else list(channels)
    lists = [widths, *([o] * len(widths) if isinstance(o, int) else list(o) for o in others)]
    for name, values in zip(("channels", "kernel_size", "stride"), lists, strict=True):
        whole = all(is_whole(v) and v > 0 for v in values)
        if not whole or not values or len(values) != len(widths):
            raise ConfigError(
                f"{owner}: {name} is {values}, expected one positive integer for each of "
                f"{max(len(widths), 1)} convolutions."
            )
    return lists
