"""Modules with torch.nn's interfaces, for the cells that torch.nn has and for all others by name.

``LSTM`` is ``torch.nn.LSTM`` over :class:`seqnets.cells.LSTMCell`, and ``LSTMCell`` one step of it.
The classes below are written out; any other is made when its name is first looked up, and type
checkers find it in ``torch_made.pyi``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqnets import cells
from seqnets.cells import GatedCell
from seqnets.cells.computed import ComputedCell
from seqnets.cells.constructors import checks_calls
from seqnets.layers.torch_base import Device, Pair
from seqnets.layers.torch_like import TorchLike
from seqnets.layers.torch_like_cell import TorchLikeCell

if TYPE_CHECKING:
    from seqnets.layers.torch_made import *  # noqa: F403


class RNN(TorchLike[Tensor], cell=cells.RNNCell):
    """Elman network: as ``torch.nn.RNN``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units of each layer, H.
        num_layers: Layers, L.
        nonlinearity: "tanh" or "relu".
        bias: Whether the affine maps have biases.
        batch_first: Whether tensors are (B, T, I) instead of (T, B, I).
        dropout: Probability in [0, 1] of dropping an output between layers, in training.
        bidirectional: Whether each layer runs in both directions (D = 2).
        device: Where the parameters live.
        dtype: Their floating-point type.
        options: Nothing else; an unknown name is refused, with the closest known one.
    """

    _fixed = (*TorchLike._fixed, "nonlinearity")

    @checks_calls
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        options |= {"device": device, "dtype": dtype, "nonlinearity": nonlinearity}
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            **options,
        )
        self.nonlinearity = nonlinearity

    @property
    def mode(self) -> str:
        """What torch.nn calls the equation, which stays as it was chosen."""
        equation: Any = self._equations[0]
        return f"RNN_{equation.nonlinearity.upper()}"


class GRU(TorchLike[Tensor], cell=cells.GRUCell):
    """Gated recurrent unit: as ``torch.nn.GRU``."""

    mode = "GRU"


class LSTM(TorchLike[Pair], cell=cells.LSTMCell):
    """Long short-term memory: as ``torch.nn.LSTM``."""

    mode = "LSTM"


class OriginalGRU(TorchLike[Tensor], cell=cells.OriginalGRUCell):
    """Gated recurrent unit with the reset before the product, as ``torch.nn.GRU`` is called."""


class PeepholeLSTM(TorchLike[Pair], cell=cells.PeepholeLSTMCell):
    """LSTM whose gates see the memory, as ``torch.nn.LSTM`` is called."""


class CoupledLSTM(TorchLike[Pair], cell=cells.CoupledLSTMCell):
    """LSTM with one gate for input and forgetting, as ``torch.nn.LSTM`` is called."""


class NoForgetLSTM(TorchLike[Pair], cell=cells.NoForgetLSTMCell):
    """LSTM without a forget gate, as ``torch.nn.LSTM`` is called."""


class RNNCell(TorchLikeCell[Tensor], cell=cells.RNNCell):
    """One step of an Elman network: as ``torch.nn.RNNCell``.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        bias: Whether the affine maps have biases.
        nonlinearity: "tanh" or "relu".
        device: Where the parameters live.
        dtype: Their floating-point type.
    """

    _fixed = (*TorchLikeCell._fixed, "nonlinearity")

    @checks_calls
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


class GRUCell(TorchLikeCell[Tensor], cell=cells.GRUCell):
    """One step of a gated recurrent unit: as ``torch.nn.GRUCell``."""


class LSTMCell(TorchLikeCell[Pair], cell=cells.LSTMCell):
    """One step of a long short-term memory: as ``torch.nn.LSTMCell``."""


class OriginalGRUCell(TorchLikeCell[Tensor], cell=cells.OriginalGRUCell):
    """One step of the GRU with the reset before the product, called as ``torch.nn.GRUCell``."""


class PeepholeLSTMCell(TorchLikeCell[Pair], cell=cells.PeepholeLSTMCell):
    """One step of an LSTM with peepholes, called as ``torch.nn.LSTMCell``."""


class CoupledLSTMCell(TorchLikeCell[Pair], cell=cells.CoupledLSTMCell):
    """One step of an LSTM with coupled gates, called as ``torch.nn.LSTMCell``."""


class NoForgetLSTMCell(TorchLikeCell[Pair], cell=cells.NoForgetLSTMCell):
    """One step of an LSTM without a forget gate, called as ``torch.nn.LSTMCell``."""


def names() -> list[str]:
    """The names of all these modules: two for each cell that supports them."""
    gated = [name for name in cells.__all__ if _is_gated(getattr(cells, name))]
    supported = [name for name in gated if not issubclass(getattr(cells, name), ComputedCell)]
    return sorted([*supported, *(name.removesuffix("Cell") for name in supported)])


def _made(name: str) -> Any:
    """Make the module of a cell that has none above: ``MGU`` for ``cells.MGUCell``, say."""
    cell = getattr(cells, name if name.endswith("Cell") else f"{name}Cell", None)
    if name.startswith("_") or not _is_gated(cell):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    one_step = name.endswith("Cell")
    base = TorchLikeCell if one_step else TorchLike
    summary = (cell.__doc__ or name).strip().splitlines()[0]
    interface = "One step, called as torch.nn.LSTMCell" if one_step else "Called as torch.nn.LSTM"
    members = {
        "__module__": __name__,
        "__doc__": f"{summary}\n\n{interface}.",
        "starts_as_torch": False,
    }
    module = type(name, (base,), members, cell=cell)
    globals()[name] = module  # the same class each time, so that it can be pickled
    return module


if not TYPE_CHECKING:  # to type checkers, every name exists in a module with this function
    __getattr__ = _made


def _is_gated(cell: Any) -> bool:
    """Whether something is a class of gated cells that declares its gates."""
    return isinstance(cell, type) and issubclass(cell, GatedCell) and hasattr(cell, "gates")
