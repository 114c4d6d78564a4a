"""Frames in, frames out: convolutional cells over videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from seqnets.cells import Cell
from seqnets.cells.convolutional import ConvolutionalCell, height_and_width
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers.deep import DeepRNN
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.state import map_state


class Video(nn.Module):
    """Run convolutional cells over videos: batches of sequences of frames with channels.

    Cells and the layers around them know frames as features laid flat. This lays them flat, and
    gives the outputs as frames again. The outputs of both directions are side by side as channels.

    Args:
        layer: A convolutional cell, or any layer around some: Recurrent, Bidirectional, DeepRNN.

    Attributes:
        frame: Height and width.
        channels_in: Channels of the input, C.
        channels_out: Channels of the output, C'.

    Raises:
        ConfigError: There is no convolutional cell in the layer, or they disagree about the frame.

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
                f"  It is the `frame` of convolutional cells, such as ConvLSTMCell."
            )
        self.frame = frames[0]
        height, width = self.frame
        self.channels_in = self.layer.input_size // (height * width)
        self.channels_out = self.layer.output_size // (height * width)

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
            cell: Makes the cells: a convolutional cell's class or a partial of it.
            channels_in: Channels of the input, C.
            channels_hidden: Channels of every layer's state; or of each.
            frame: Height and width.
            options: What :class:`DeepRNN` takes beyond the cell and the sizes.

        Example:
            >>> cell = partial(cells.ConvGRUCell, kernel_size=5)
            >>> video = Video.deep(cell, 3, [32, 16], (64, 64))
        """
        height, width = height_and_width("Video", frame)
        places = height * width
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
            state: The state before the first step, as the layer gives it: frames laid flat,
                (B, H); its initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where the state starts anew before a step, (B, T) boolean.

        Raises:
            ShapeError: ``x`` has another rank, or frames of another size.
        """
        y, state = self.layer(self._flat(x, "B", "T"), state, lengths, resets)
        return map_state(self._framed, y), state

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
        if x.dim() != len(legend) + 3 or x.shape[-3:] != expected:
            raise ShapeError(
                f"Video: input has shape {tuple(x.shape)}, expected "
                f"({', '.join(legend)}, C, height, width) with {expected} last.\n"
                f"  These are the channels and the frame that the cells were built with."
            )
        return x.flatten(-3)

    def _framed(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (-1, *self.frame))
