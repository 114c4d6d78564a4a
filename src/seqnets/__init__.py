"""seqnets: recurrent sequence models for PyTorch, each written once as its paper's equation."""

from seqnets import cells, engine, errors, layers
from seqnets.cells import Cell, GatedCell
from seqnets.engine import explain, unroll
from seqnets.layers import Bidirectional, DeepRNN, Recurrent, Truncated
from seqnets.layers.torch_like import (
    GRU,
    LSTM,
    RNN,
    CoupledLSTM,
    CoupledLSTMCell,
    GRUCell,
    LSTMCell,
    NoForgetLSTM,
    NoForgetLSTMCell,
    OriginalGRU,
    OriginalGRUCell,
    PeepholeLSTM,
    PeepholeLSTMCell,
    RNNCell,
    TorchLike,
    TorchLikeCell,
)

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Cell",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "DeepRNN",
    "GRUCell",
    "GatedCell",
    "LSTMCell",
    "NoForgetLSTM",
    "NoForgetLSTMCell",
    "OriginalGRU",
    "OriginalGRUCell",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "RNNCell",
    "Recurrent",
    "TorchLike",
    "TorchLikeCell",
    "Truncated",
    "cells",
    "engine",
    "errors",
    "explain",
    "layers",
    "unroll",
]
