"""Convolutional cells over videos: frames in, frames out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from typing_extensions import Self

from seqnets.cells import Cell
from seqnets.cells.convolutional import ConvolutionalCell, sides_of
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers.deep import DeepRNN
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.state import map_state


class Video(nn.Module):
    """Run convolutional cells over videos: batches of sequences of frames with channels.

    Cells and layers treat frames as flat feature vectors. This flattens the input and unflattens
    the output. Both directions of a bidirectional layer are concatenated as channels. Where the
    frames are rows or volumes, so are those of the input: (B, T, C, width), for example.

    Args:
        layer: A convolutional cell, or a layer of such cells: Recurrent, Bidirectional, DeepRNN.

    Attributes:
        frame: Height and width; or the one side of a row, or the three of a volume.
        channels_in: Channels of the input, C.
        channels_out: Channels of the output, C'.

    Raises:
        ConfigError: The layer has no convolutional cell, its cells differ in frame size, or it is a
            stack with norms or feed-forward layers.

    Example:
        >>> video = Video(cells.ConvLSTMCell.over(1, 16, frame=(64, 64)))
        >>> y, state = video(torch.randn(4, 10, 1, 64, 64))  # y: (4, 10, 16, 64, 64)
    """

    layer: Any

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = Recurrent(layer) if isinstance(layer, Cell) else layer
        cells = [cell for cell in layer.modules() if isinstance(cell, ConvolutionalCell)]
        frames = list(dict.fromkeys(cell.frame for cell in cells))
        if len(frames) != 1:
            raise ConfigError(
                f"Video: the cells of {type(layer).__name__} have the frames {frames}, expected "
                f"one for all.\n"
                f"  Frames come from the `frame` of convolutional cells, such as ConvLSTMCell."
            )
        stacks = [part for part in layer.modules() if isinstance(part, DeepRNN)]
        _check_no_blocks(any(len(stack.norms) or len(stack.feed_forwards) for stack in stacks))
        self.frame = frames[0]
        places = math.prod(self.frame)
        self.channels_in = self.layer.input_size // places
        self.channels_out = self.layer.output_size // places

    @classmethod
    def deep(
        cls,
        cell: Callable[..., Cell],
        channels_in: int,
        channels_hidden: int | Sequence[int],
        frame: Sequence[int],
        **options: Any,
    ) -> Self:
        """A stack of layers.

        Args:
            cell: A convolutional cell's class or a partial of it.
            channels_in: Channels of the input, C.
            channels_hidden: Channels of every layer's state; or a list with one per layer.
            frame: Height and width; or the one side of a row, or the three of a volume.
            options: What :class:`DeepRNN` takes beyond the cell and the sizes, but for ``norm`` and
                ``feed_forward``.

        Example:
            >>> cell = partial(cells.ConvGRUCell, kernel_size=5)
            >>> video = Video.deep(cell, 3, [32, 16], (64, 64))
        """
        places = math.prod(sides_of("Video", frame))
        _check_no_blocks(options.get("norm", "none") != "none" or options.get("feed_forward"))
        hidden = (
            [channels * places for channels in channels_hidden]
            if isinstance(channels_hidden, Sequence)
            else channels_hidden * places
        )
        return cls(DeepRNN(partial(cell, frame=frame), channels_in * places, hidden, **options))

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Outputs (B, T, C', height, width), and the state after each row's last step.

        Args:
            x: Videos, (B, T, C, height, width).
            state: The state before the first step, as the layer returns it, with flat frames
                (B, H); its initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Steps before which the state is reset, (B, T) boolean.

        Raises:
            ShapeError: ``x`` has another rank, or frames of another size.
        """
        y, state = self.layer(self._flat(x, "B", "T"), state, lengths, resets)
        return map_state(self._framed, y), state

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(
        self, x: Tensor, state: Any = None, resets: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Take one step: frames (B, C, height, width), to (B, C', height, width) and the state."""
        y, state = self.layer.step(self._flat(x, "B"), state, resets)
        return self._framed(y), state

    def extra_repr(self) -> str:
        """The channels and the frame."""
        return f"{self.channels_in}, {self.channels_out}, frame={self.frame}"

    def _flat(self, x: Tensor, *legend: str) -> Tensor:
        expected = (self.channels_in, *self.frame)
        if x.dim() != len(legend) + len(expected) or x.shape[len(legend) :] != expected:
            raise ShapeError(
                f"Video: input has shape {tuple(x.shape)}, expected "
                f"({', '.join(legend)}, C, {', '.join(_SIDES[-len(self.frame) :])}) with "
                f"{expected} last.\n"
                f"  These are the channels and the frame that the cells were built with."
            )
        return x.flatten(len(legend))

    def _framed(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (-1, *self.frame))


_SIDES = ("depth", "height", "width")
"""Those of a volume; of a frame, the last two; of a row, the last."""


def _check_no_blocks(blocks: Any) -> None:
    """Raise ConfigError if a stack has, or would have, norms or feed-forward layers."""
    if blocks:
        raise ConfigError(
            "Video: the stack has norms or feed-forward layers, expected norm='none' and "
            "feed_forward=0.\n"
            "  They take a frame as a vector, and would have parameters for each of its pixels."
        )
