"""The dtypes that torch.nn's recurrent modules return under autocast on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqnets.cells import GRUCell, LSTMCell, RNNCell
from seqnets.cells.given import autocasts
from seqnets.engine.modes import is_exporting
from seqnets.typing import State

if TYPE_CHECKING:
    from seqnets.layers.torch_like import TorchLike


def in_torchs_dtypes(
    module: TorchLike[Any], x: Tensor, y: Tensor, state: State, *, packed: bool = False
) -> tuple[Tensor, State]:
    """Outputs and state in the dtypes that torch.nn's module returns under autocast on a CPU.

    Its GRUs and packed LSTMs return the input's dtype. Its RNNs and projected LSTMs return
    autocast's, except for the memory. All other LSTMs return autocast's where oneDNN runs them.

    Args:
        module: The module.
        x: Its input.
        y: Its outputs.
        state: The state after the last step.
        packed: Whether the input was packed.
    """
    if not x.is_cpu or not autocasts(x):
        return y, state
    kind, dtype = module.cell_class, torch.get_autocast_dtype("cpu")
    if module.proj_size or issubclass(kind, RNNCell):
        return y.to(dtype), (state[0].to(dtype), *[part.to(x.dtype) for part in state[1:]])
    if packed or issubclass(kind, GRUCell):
        return y.to(x.dtype), tuple([part.to(x.dtype) for part in state])
    if issubclass(kind, LSTMCell) and not is_exporting():
        dtype = dtype if x.numel() and _onednn_runs() else x.dtype
        return y.to(dtype), tuple([part.to(dtype) for part in state])
    return y, state  # an export has torch's own LSTM, whose dtype it does not know


_HAS_ONEDNN = torch.backends.mkldnn.is_available()  # looked up once: compilers cannot


def _onednn_runs() -> bool:
    """Whether torch has oneDNN, and a user has not switched it off, which compilers cannot ask."""
    return _HAS_ONEDNN and (torch.compiler.is_compiling() or bool(torch.backends.mkldnn.enabled))
