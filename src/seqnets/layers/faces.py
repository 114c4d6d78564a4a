"""Cells with the faces of torch.nn's modules: those that torch.nn has, and any other by its name.

``LSTM`` is ``torch.nn.LSTM`` over :class:`seqnets.cells.LSTMCell`, and ``LSTMCell`` one step of it.
"""

from __future__ import annotations

from typing import Any

import torch

from seqnets import cells
from seqnets.cells import GatedCell
from seqnets.cells.computed import ComputedCell
from seqnets.layers.torch_like import Device, TorchLike, TorchLikeCell


class RNN(TorchLike, cell=cells.RNNCell):
    """Elman network: as ``torch.nn.RNN``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units of each layer, H.
        num_layers: Layers, L.
        nonlinearity: "tanh" or "relu".
        args: bias, batch_first, dropout, bidirectional: torch.nn's further arguments, in its order.
        kwargs: The same by name, device and dtype; see :class:`TorchLike`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, *args, nonlinearity=nonlinearity, **kwargs
        )
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"


class GRU(TorchLike, cell=cells.GRUCell):
    """Gated recurrent unit: as ``torch.nn.GRU``."""

    mode = "GRU"


class LSTM(TorchLike, cell=cells.LSTMCell):
    """Long short-term memory: as ``torch.nn.LSTM``."""

    mode = "LSTM"


class OriginalGRU(TorchLike, cell=cells.OriginalGRUCell):
    """Gated recurrent unit with the reset before the product, as ``torch.nn.GRU`` is called."""


class PeepholeLSTM(TorchLike, cell=cells.PeepholeLSTMCell):
    """LSTM whose gates see the memory, as ``torch.nn.LSTM`` is called."""


class CoupledLSTM(TorchLike, cell=cells.CoupledLSTMCell):
    """LSTM with one gate for input and forgetting, as ``torch.nn.LSTM`` is called."""


class NoForgetLSTM(TorchLike, cell=cells.NoForgetLSTMCell):
    """LSTM without a forget gate, as ``torch.nn.LSTM`` is called."""


class RNNCell(TorchLikeCell, cell=cells.RNNCell):
    """One step of an Elman network: as ``torch.nn.RNNCell``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        bias: Whether the affine maps have biases.
        nonlinearity: "tanh" or "relu".
        device: Where the parameters live.
        dtype: Their floating-point type.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias, device=device, dtype=dtype, nonlinearity=nonlinearity
        )
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        other = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + other


class GRUCell(TorchLikeCell, cell=cells.GRUCell):
    """One step of a gated recurrent unit: as ``torch.nn.GRUCell``."""


class LSTMCell(TorchLikeCell, cell=cells.LSTMCell):
    """One step of a long short-term memory: as ``torch.nn.LSTMCell``."""


class OriginalGRUCell(TorchLikeCell, cell=cells.OriginalGRUCell):
    """One step of the GRU with the reset before the product, called as ``torch.nn.GRUCell``."""


class PeepholeLSTMCell(TorchLikeCell, cell=cells.PeepholeLSTMCell):
    """One step of an LSTM with peepholes, called as ``torch.nn.LSTMCell``."""


class CoupledLSTMCell(TorchLikeCell, cell=cells.CoupledLSTMCell):
    """One step of an LSTM with coupled gates, called as ``torch.nn.LSTMCell``."""


class NoForgetLSTMCell(TorchLikeCell, cell=cells.NoForgetLSTMCell):
    """One step of an LSTM without a forget gate, called as ``torch.nn.LSTMCell``."""


def names() -> list[str]:
    """Every name of a face: for sequences and for one step of each cell that can have them."""
    gated = [name for name in cells.__all__ if _is_gated(getattr(cells, name))]
    faced = [name for name in gated if not issubclass(getattr(cells, name), ComputedCell)]
    return sorted([*faced, *(name.removesuffix("Cell") for name in faced)])


def __getattr__(name: str) -> Any:
    """The face of a cell that has none above: ``MGU`` for ``cells.MGUCell``, and ``MGUCell``."""
    cell = getattr(cells, name if name.endswith("Cell") else f"{name}Cell", None)
    if name.startswith("_") or not _is_gated(cell):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    one = name.endswith("Cell")
    summary = (cell.__doc__ or "").strip().splitlines()[0]
    called = "One step of a cell, as torch.nn.LSTMCell is called" if one else "As torch.nn.LSTM"
    members = {
        "__module__": __name__,
        "__doc__": f"{summary}\n\n{called}.",
        "starts_as_torch": False,
    }
    face = type(name, (TorchLikeCell if one else TorchLike,), members, cell=cell)
    globals()[name] = face  # the same class each time, so that it can be pickled
    return face


def _is_gated(cell: Any) -> bool:
    """Whether something is a class of cells that says its gates."""
    return isinstance(cell, type) and issubclass(cell, GatedCell) and hasattr(cell, "gates")
