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
from seqnets.cells.options import Activations, ClipState, LayerNorm, LearnedState
from seqnets.cells.regularizers import (
    InputDropout,
    RecurrentDropout,
    VariationalDropout,
    Zoneout,
    weight_drop,
)
from seqnets.cells.rnn import RNNCell
from seqnets.cells.starting import chrono, initialize
from seqnets.cells.wrapper import CellOption, OptionedCell, Wrapper

__all__ = [
    "Activations",
    "Cell",
    "CellOption",
    "ClipState",
    "CoupledLSTMCell",
    "GRUCell",
    "GatedCell",
    "InputDropout",
    "LSTMCell",
    "LayerNorm",
    "LearnedState",
    "MemoryCell",
    "NoForgetLSTMCell",
    "OptionedCell",
    "OriginalGRUCell",
    "PeepholeLSTMCell",
    "RNNCell",
    "RecurrentDropout",
    "VariationalDropout",
    "Wrapper",
    "Zoneout",
    "chrono",
    "initialize",
    "weight_drop",
]
