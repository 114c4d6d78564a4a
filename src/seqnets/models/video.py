"""Models of videos: what one shows, and how it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from seqnets.cells import CellOption
from seqnets.cells.convolutional import ConvolutionalCell
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, ConvFront2d, Video
from seqnets.models.classifier import SequenceClassifier
from seqnets.models.encoder import with_options


class VideoClassifier(SequenceClassifier):
    """Tell the class of a video: convolutions over each frame, and a classifier of what they give.

    Args:
        cell: Makes the stack's cells: a cell's class or a partial of it.
        num_classes: Classes there are.
        channels: Channels of a frame, C.
        height: Of a frame.
        width: Of a frame.
        filters: Features that each convolution gives to each place.
        kernel_size: Height and width that each of them sees; or of each.
        stride: How many pixels apart its outputs are; or of each.
        options: As for :class:`SequenceClassifier`, but for the input's sizes.

    References:
        Donahue et al., 2015, "Long-term Recurrent Convolutional Networks for Visual Recognition and
        Description", arXiv:1411.4389.
    """

    def __init__(
        self,
        cell: CellFactory,
        num_classes: int,
        channels: int,
        height: int,
        width: int,
        *,
        filters: Sequence[int] = (16, 32),
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 2,
        **options: Any,
    ) -> None:
        front = ConvFront2d(channels, filters, kernel_size, stride, frame=(height, width))
        super().__init__(cell, num_classes, input_size=front.output_size, **options)
        self.front = front

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of the classes, and the state after each row's last valid frame.

        Args:
            x: Frames, (B, T, C, height, width).
            state: The state before the first frame; that of a beginning if omitted.
            lengths: Valid frames of each row, (B,); all T if omitted.
        """
        x, lengths = self.front(x, lengths)
        return super().forward(x, state, lengths)


class FramePredictor(nn.Module):
    """Tell each pixel of the frame that follows: convolutional cells, and an output a place.

    Args:
        cell: Makes the stack's cells: a convolutional cell's class or a partial of it.
        channels: Channels of a frame, C.
        height: Of a frame.
        width: Of a frame.
        hidden_channels: Channels of every layer's state; or of each.
        num_layers: Layers; by default as many as ``hidden_channels`` lists, else 1.
        dropout: Probability in [0, 1) of dropping an output between layers.
        connection: What leads around layers; see ``DeepRNN``.
        backend: "auto", or the name of the engine's backend that must run.
        memory: "full", or "lean" to train in less memory and more time; see ``unroll``.
        cell_options: What every cell gets, by names of the caller's: see ``optioned``.

    Raises:
        ConfigError: The cell is not convolutional, or the stack cannot be built as asked.

    References:
        Shi et al., 2015, "Convolutional LSTM Network: A Machine Learning Approach for
        Precipitation Nowcasting", arXiv:1506.04214, which predicts many frames from many: an
        encoder's state starts a second stack. Here each frame is predicted from all before it.
    """

    def __init__(
        self,
        cell: CellFactory,
        channels: int,
        height: int,
        width: int,
        *,
        hidden_channels: int | Sequence[int] = 16,
        num_layers: int | None = None,
        dropout: float = 0.0,
        connection: str = "none",
        backend: str = "auto",
        memory: str = "full",
        cell_options: Mapping[str, CellOption] | None = None,
    ) -> None:
        super().__init__()
        made = cell.func if isinstance(cell, partial) else cell
        if isinstance(made, type) and not issubclass(made, ConvolutionalCell):
            raise ConfigError(
                f"FramePredictor: the cell is {made.__name__}, expected a convolutional one, such "
                "as ConvLSTMCell.\n  A frame is to stay one."
            )
        self.video = Video.deep(
            with_options(cell, cell_options),
            channels,
            hidden_channels,
            (height, width),
            num_layers=num_layers,
            dropout=dropout,
            connection=connection,
            backend=backend,
            memory=memory,
        )
        self.output = nn.Conv2d(self.video.channels_out, channels, kernel_size=1)

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of each next frame's pixels, as ``x``, and the state after the last valid one.

        Args:
            x: Frames, (B, T, C, height, width).
            state: The state before the first frame; that of a beginning if omitted.
            lengths: Valid frames of each row, (B,); all T if omitted.
        """
        y, state = self.video(x, state, lengths)
        return self.output(y.flatten(0, 1)).unflatten(0, y.shape[:2]), state
