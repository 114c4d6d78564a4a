"""Every cell that seqnets exports, found automatically so that none can be forgotten."""

import torch

from seqnets import cells
from seqnets.cells.convolutional import ConvolutionalCell

ABSTRACT = (
    cells.Cell,
    cells.GatedCell,
    cells.MatrixMemoryCell,
    cells.MemoryCell,
    cells.SpikingCell,
)

FINAL_CELLS = [
    cell
    for cell in (getattr(cells, name) for name in cells.__all__)
    if isinstance(cell, type)
    and issubclass(cell, cells.Cell)
    and cell not in ABSTRACT
    and not issubclass(cell, cells.Wrapper)
]

SPIKING_CELLS = [cell for cell in FINAL_CELLS if issubclass(cell, cells.SpikingCell)]

MATRIX_CELLS = [cell for cell in FINAL_CELLS if issubclass(cell, cells.MatrixMemoryCell)]

TRACED_CELLS = [
    cell
    for cell in FINAL_CELLS
    if not issubclass(cell, (ConvolutionalCell, cells.MatrixMemoryCell))
]
"""Cells whose step the engine traces: all but convolutions and those that keep matrices."""

PAIRING_CELLS = [cells.MassConservingLSTMCell, cells.NCPCell]
"""Cells with a number for each pair of units, of which a traced step may have up to 1024."""

ONE_OF_EACH_KIND = (
    cells.ClockworkRNNCell,  # units that rest, and know the time
    cells.ConvLSTMCell,  # frames, which no loop is compiled for
    cells.GRUCell,
    cells.LRUCell,  # linear in its state, complex numbers
    cells.LSTMCell,  # two states
    cells.MLSTMCell,  # a matrix, for which no loop is compiled
    cells.MinGRUCell,  # linear in its state
    cells.OriginalGRUCell,  # a product of a product
    cells.PeepholeLSTMCell,  # diagonal weights
    cells.PhasedLSTMCell,  # times between steps
    cells.RecurrentHighwayCell,  # several updates a step
    cells.SLSTMCell,  # weights by heads, four states
)

PROJECTING = [cell for cell in FINAL_CELLS if getattr(cell, "projects", False)]


def sized(cell_cls, input_size, hidden_size, **options):
    """Create a cell of these sizes, or of equal sizes if the cell requires that."""
    return cell_cls(width(cell_cls, input_size, hidden_size), hidden_size, **options)


def width(cell_cls, input_size, hidden_size):
    """An input size that the cell accepts with this hidden size."""
    return hidden_size if getattr(cell_cls, "square", False) else input_size


def smooth(cell):
    """Let a cell's spikes be sigmoids, with no threshold that rounding might pass."""
    if isinstance(cell.innermost, cells.SpikingCell):
        cell.innermost.spike = _sigmoid
    return cell


def _sigmoid(above):
    return torch.sigmoid(4 * above)


def lawless(cell_cls):
    """The laws that a cell does not obey as it is, on random numbers."""
    if issubclass(cell_cls, cells.SpikingCell):
        return ("gradients",)  # a spike's derivative is said to be another
    return ("usefulness",) if cell_cls is cells.GRUDCell else ()  # nothing is missing


_DRAWN = {base.reset_parameters for base in (cells.GatedCell, cells.MemoryCell, cells.LSTMCell)}
GENERIC = [
    cell
    for cell in FINAL_CELLS
    if getattr(cell, "reset_parameters", None) in _DRAWN and not sized(cell, 3, 4).parametrised
]
"""Cells whose parameters are initialised as in every gated cell."""
