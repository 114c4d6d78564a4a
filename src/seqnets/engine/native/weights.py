"""The weights of cells as torch's kernels take them: their order, and their memory on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from seqnets.cells import Cell, GatedCell, LSTMCell, RNNCell
from seqnets.engine.families import family


def weights_of(cell: GatedCell) -> list[Any]:
    """A cell's weights, in the order in which torch's kernels take them."""
    own = cell._parameters
    try:
        return list(map(own.__getitem__, cell.parameter_shapes))
    except KeyError:  # some are computed from others
        return [cell._tensor(name) for name in cell.parameter_shapes]


def flatten_parameters(cells: Sequence[Cell], directions: int = 1) -> None:
    """Move float16 weights into one piece of memory, from which cuDNN reads them on a GPU.

    Otherwise each call copies them into one. The parameters remain the same objects. Those that
    share memory with other tensors are not moved, nor are those of other dtypes: for these the
    engine's own loops are as fast, and some formats for saving weights refuse, or confuse, tensors
    that share memory.

    Args:
        cells: The cells that one call runs, as for ``layers_at_once``.
        directions: D, 1 or 2.
    """
    if any(family(cell) is None or cell.parametrised for cell in cells):
        return
    cell = cast(GatedCell, cells[0])
    weights = [weight for each in cells for weight in weights_of(cast(GatedCell, each))]
    if not all(map(_may_move, weights)) or not torch._use_cudnn_rnn_flatten_weight():
        return
    proj_size = cell.proj_size if isinstance(cell, LSTMCell) else 0
    sizes = cell.input_size, _mode(cell), cell.hidden_size, proj_size, len(cells) // directions
    with torch.no_grad(), torch.cuda.device_of(weights[0]):
        # (..., num_layers, batch_first, bidirectional)
        stride = len(weights) // len(cells)
        torch._cudnn_rnn_flatten_weight(weights, stride, *sizes, True, directions > 1)


def _may_move(weight: Tensor) -> bool:
    """Whether a weight is in float16, has memory of its own, and cuDNN takes it."""
    return (
        isinstance(weight, nn.Parameter)  # not a tensor that is computed from one
        and weight.dtype == torch.float16
        and weight.untyped_storage().nbytes() == weight.numel() * weight.element_size()
        and torch.backends.cudnn.is_acceptable(weight)
    )


def _mode(cell: GatedCell) -> int:
    """The number by which cuDNN knows a cell's equation."""
    # In torch 2.10, the import hides an option of the same name, so it waits until it is needed.
    from torch.backends.cudnn.rnn import get_cudnn_mode

    if isinstance(cell, RNNCell):
        return get_cudnn_mode(f"RNN_{cell.nonlinearity.upper()}")
    return get_cudnn_mode("LSTM" if isinstance(cell, LSTMCell) else "GRU")
