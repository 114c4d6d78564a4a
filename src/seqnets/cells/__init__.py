"""Cells: one time step of a recurrence each, written as in its paper."""

from seqnets.cells.base import Cell, GatedCell
from seqnets.cells.gru import GRUCell, OriginalGRUCell
from seqnets.cells.lstm import (
    CoupledLSTMCell,
    LSTMCell,
    MemoryCell,
    NoForgetLSTMCell,
    PeepholeLSTMCell,
)
from seqnets.cells.rnn import RNNCell

__all__ = [
    "Cell",
    "CoupledLSTMCell",
    "GRUCell",
    "GatedCell",
    "LSTMCell",
    "MemoryCell",
    "NoForgetLSTMCell",
    "OriginalGRUCell",
    "PeepholeLSTMCell",
    "RNNCell",
]
