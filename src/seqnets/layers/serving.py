"""Streaming: a layer fed one step at a time, which keeps its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from seqnets.cells.checks import wrong_argument
from seqnets.checks import check_count
from seqnets.engine.lengths import where_rows
from seqnets.engine.request import checked_resets
from seqnets.engine.streaming import CellStream, stream_cell
from seqnets.errors import ConfigError, DeviceError, DtypeError, ShapeError
from seqnets.layers.bidirectional import Bidirectional, Reversed
from seqnets.layers.deep import DeepRNN
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.state import map_state
from seqnets.layers.torch_like import TorchLike


class Stream:
    """Serve a recurrent layer: one step per call, with the state kept from call to call.

    The layer keeps its mode: call ``layer.eval()`` first, or zoneout, dropped weights and other
    noise are drawn as in training. Weights are copied and packed for the processor when the stream
    is made: make a new one after further training. A call allocates no memory, except for skip
    connections, norms, feed-forward layers and times.

    Args:
        layer: ``Recurrent``, ``DeepRNN`` or a torch.nn-like module that runs forwards. Dropout
            in front of its layers and feed-forward layers is not applied, whatever its mode.
        batch_size: Rows of each step, B.

    Attributes:
        backend: "c", or "reference" where the cell or the machine does not support it.
        reason: Why the backend is not "c"; None if it is.

    Raises:
        ConfigError: The layer is of another kind, runs backwards or in both directions.

    Example:
        >>> stream = Stream(Recurrent(cells.GRUCell(8, 256)))
        >>> for x_t in x.unbind(1):  # (1, 8) each
        ...     y_t = stream(x_t)  # (1, 256), overwritten by the next call
        >>> stream.reset()  # or in some rows: stream.reset(done)
    """

    def __init__(self, layer: nn.Module, batch_size: int = 1) -> None:
        check_count("Stream", batch_size=batch_size)
        with torch.inference_mode(False), torch.no_grad():  # buffers must be writable in any mode
            self._build(layer, batch_size)

    def _build(self, layer: nn.Module, batch_size: int) -> None:
        """Allocate the buffers and make a stream of each layer's cell."""
        cells, self._above = _cells_and_what_is_above(layer)
        self._x = cells[0]._like.new_zeros(batch_size, cells[0].input_size).detach()
        self._starts = [tuple(s.detach() for s in c.checked_start(batch_size)) for c in cells]
        self._streams: list[CellStream] = []
        self._buffers: list[tuple[Tensor, Tensor, Tensor]] = []
        reasons = []
        below = read = self._x
        for cell, join in zip(cells, self._above, strict=True):
            stream, reason = stream_cell(cell, read)
            above, read = join(below, stream.y)
            self._streams.append(stream)
            self._buffers.append((below, above, read))
            reasons.append(reason)
            below = above
        self._y = read
        self.reason = next((reason for reason in reasons if reason is not None), None)
        self.backend = "c" if self.reason is None else "reference"
        self.reset()

    def __repr__(self) -> str:
        x, y = tuple(self._x.shape), tuple(self._y.shape)
        return f"Stream(x={x}, y={y}, backend={self.backend!r})"

    def __call__(self, x: Tensor) -> Tensor:
        """Take a step.

        Args:
            x: Input, (B, I).

        Returns:
            Output, (B, H), in a buffer that the next call overwrites.

        Raises:
            ShapeError: ``x`` is not (B, I).
            DtypeError: ``x`` is not of the parameters' dtype.
            DeviceError: ``x`` is not on the parameters' device.
        """
        if (
            not isinstance(x, Tensor)
            or x.shape != self._x.shape
            or x.dtype != self._x.dtype
            or x.device != self._x.device
        ):
            self._refuse(x)
        self._x.copy_(x.detach())
        for stream, join, (below, above, read) in zip(
            self._streams, self._above, self._buffers, strict=True
        ):
            stream()
            if read is not stream.y:
                with torch.no_grad():
                    now, normed = join(below, stream.y)
                    above.copy_(now)
                    if read is not above:
                        read.copy_(normed)
        return self._y

    def reset(self, rows: Tensor | None = None) -> None:
        """Reset the state of all rows, or of those where ``rows``, (B,) boolean, is true."""
        if rows is not None:
            rows = checked_resets("Stream", rows, self._x, "B")[:, None]
        for stream, start in zip(self._streams, self._starts, strict=True):
            stream.set_state(start if rows is None else where_rows(rows, start, stream.state))

    @property
    def state(self) -> Any:
        """The state of each layer, each part (B, H): a copy. Assign one to continue from it."""
        return tuple(tuple(part.clone() for part in stream.state) for stream in self._streams)

    @state.setter
    def state(self, state: Any) -> None:
        came, expected = _shapes(state), _shapes(tuple(self._starts))
        if came != expected:
            raise ShapeError(
                f"Stream: state has shapes {came}, expected {expected}: a tuple for each layer.\n"
                f"  Pass a state from Recurrent as (state,); call reset() for the initial state."
            )
        for stream, given in zip(self._streams, state, strict=True):
            stream.set_state(given)

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            "Stream: cannot be copied or pickled, since it holds compiled code and memory of this "
            "process.\n"
            "  Copy or pickle the layer, make a new stream from it, and set its state."
        )

    def _refuse(self, x: Tensor) -> None:
        like = self._x
        if not isinstance(x, Tensor):
            raise DtypeError(f"Stream: input is {type(x).__name__}, expected a tensor.")
        if x.shape != like.shape:
            raise ShapeError(
                f"Stream: input has shape {tuple(x.shape)}, expected (B, I) = "
                f"{tuple(like.shape)}.\n"
                f"  B is the batch_size that the stream was made for."
            )
        if x.dtype != like.dtype:
            raise DtypeError(
                f"Stream: input is {x.dtype}, expected {like.dtype} as the parameters are."
            )
        raise DeviceError(
            f"Stream: input is on {x.device}, expected {like.device} as the parameters are."
        )


def _shapes(state: Any) -> Any:
    """A state with every tensor replaced by its shape."""
    return map_state(lambda part: tuple(part.shape), state)


_STREAMED = (Recurrent, DeepRNN, TorchLike)


def _cells_and_what_is_above(layer: nn.Module) -> tuple[list[Any], list[Callable[..., Any]]]:
    """The cells of a layer, and what is above each; see ``DeepRNN.above``."""
    for part in layer.modules() if isinstance(layer, nn.Module) else ():
        own = next((kind for kind in _STREAMED if isinstance(part, kind)), None)
        if own is not None and type(part).forward is not own.forward:
            raise ConfigError(
                f"Stream: {type(part).__name__} defines forward, expected that of {own.__name__}.\n"
                f"  A stream runs the layer's cells alone; stream a plain {own.__name__}, and do "
                f"the rest around it."
            )
    if isinstance(layer, (Recurrent, Bidirectional, Reversed)):
        layers: list[Any] = [layer]
        above: list[Callable[..., Any]] = [_alone]
    elif isinstance(layer, DeepRNN):
        layers = list(layer.layers)
        above = layer.above(dropout=nn.Identity())
    elif isinstance(layer, TorchLike):
        if layer.bidirectional:
            raise ConfigError("Stream: the layer runs in both directions, expected one.")
        return layer.bound_cells(), [_alone] * layer.num_layers
    else:
        expected = "Recurrent, DeepRNN or a module like torch.nn's"
        raise wrong_argument("Stream", "layer", layer, expected, _STREAMED)
    if any(not isinstance(part, Recurrent) or part.reverse for part in layers):
        raise ConfigError(
            "Stream: the layer runs backwards or in both directions, expected a forward layer."
        )
    return [part.cell for part in layers], above


def _alone(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output, as it is."""
    return y, y
