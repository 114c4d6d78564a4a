"""Models of videos: classification, and prediction of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from seqnets.cells import CellOption
from seqnets.cells.convolutional import ConvolutionalCell
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, ConvFront2d, Video
from seqnets.layers.checks import check_reads_no_times
from seqnets.models.classifier import SequenceClassifier
from seqnets.models.encoder import with_options


class VideoClassifier(SequenceClassifier):
    """Classify videos: convolutions over each frame, then a sequence classifier.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        num_classes: Number of classes.
        channels: Channels of a frame, C.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        filters: Output channels of each convolution.
        kernel_size: Side of each convolution's window: one number, or one per convolution.
        stride: Pixels between outputs: one number, or one per convolution.
        options: As for :class:`SequenceClassifier`, except for the input's sizes.

    Raises:
        ConfigError: The cell takes times (``timed``), or another option is invalid.

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
        check_reads_no_times("VideoClassifier", self.encoder, "an embedded frame")
        self.front = front

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of the classes, and the state after each row's last valid frame.

        Args:
            x: Frames, (B, T, C, height, width).
            state: The state before the first frame; the initial state if omitted.
            lengths: Valid frames of each row, (B,); all T if omitted.
        """
        x, lengths = self.front(x, lengths)
        return super().forward(x, state, lengths)


class FramePredictor(nn.Module):
    """Predict each pixel of the next frame: convolutional cells, then a 1x1 convolution.

    Args:
        cell: A convolutional cell's class or a partial of it, for the stack's cells.
        channels: Channels of a frame, C.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        hidden_channels: Channels of every layer's state; or a list with one per layer.
        num_layers: Layers; by default the length of a list ``hidden_channels``, or 1.
        dropout: Probability in [0, 1) of dropping an output between layers.
        connection: Skip connections; see ``DeepRNN``.
        backend: "auto", or the name of the engine's backend that must run.
        memory: "full", or "lean" to train in less memory and more time; see ``unroll``.
        cell_options: Options of every cell, with names of the caller's choice; see ``optioned``.

    Raises:
        ConfigError: The cell is not convolutional, or the stack's options are invalid.

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
                "as ConvLSTMCell.\n  The output must be a frame again."
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
            state: The state before the first frame; the initial state if omitted.
            lengths: Valid frames of each row, (B,); all T if omitted.
        """
        y, state = self.video(x, state, lengths)
        return self.output(y.flatten(0, 1)).unflatten(0, y.shape[:2]), state
