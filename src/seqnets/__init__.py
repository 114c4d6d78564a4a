"""seqnets: recurrent sequence models for PyTorch, each written once as its paper's equation.

Names are loaded when they are first used, so that commands which need no tensors are quick, and
``seqnets train`` can settle how threads wait before torch starts them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqnets import benchmarking as benchmarking
    from seqnets import cells, engine, errors, layers
    from seqnets import conversion as conversion
    from seqnets import datasets as datasets
    from seqnets import initializers as initializers
    from seqnets import insight as insight
    from seqnets import models as models
    from seqnets import testing as testing
    from seqnets import training as training
    from seqnets import typing as typing
    from seqnets.cells import Cell, GatedCell
    from seqnets.engine.unroll import unroll
    from seqnets.layers import (
        Bidirectional,
        ConvFront1d,
        ConvFront2d,
        DeepOutput,
        DeepRNN,
        Fronted,
        Hierarchical,
        Recurrent,
        Reversed,
        Stream,
        Truncated,
        Video,
        explain,
    )
    from seqnets.layers.torch_like import TorchLike
    from seqnets.layers.torch_like_cell import TorchLikeCell
    from seqnets.layers.torch_made import *  # noqa: F403
    from seqnets.layers.torch_modules import (
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
    )

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "Cell",
    "ConvFront1d",
    "ConvFront2d",
    "CoupledLSTM",
    "CoupledLSTMCell",
    "DeepOutput",
    "DeepRNN",
    "Fronted",
    "GRUCell",
    "GatedCell",
    "Hierarchical",
    "LSTMCell",
    "NoForgetLSTM",
    "NoForgetLSTMCell",
    "OriginalGRU",
    "OriginalGRUCell",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "RNNCell",
    "Recurrent",
    "Reversed",
    "Stream",
    "TorchLike",
    "TorchLikeCell",
    "Truncated",
    "Video",
    "cells",
    "engine",
    "errors",
    "explain",
    "layers",
    "unroll",
]

_PARTS = {"cells", "engine", "errors", "layers", "testing", "conversion", "typing", "initializers"}
_PARTS |= {"models", "datasets", "training", "insight", "benchmarking"}  # not for import *
_HOMES = {"explain": "layers", "unroll": "engine", "Cell": "cells", "GatedCell": "cells"}
_HOMES |= dict.fromkeys(("Bidirectional", "ConvFront1d", "ConvFront2d", "DeepOutput"), "layers")
_HOMES |= dict.fromkeys(("DeepRNN", "Fronted", "Hierarchical", "Recurrent", "Reversed"), "layers")
_HOMES |= dict.fromkeys(("Stream", "Truncated", "Video"), "layers")
_HOMES |= {"TorchLike": "layers.torch_like", "TorchLikeCell": "layers.torch_like_cell"}
"""Where names are defined that are not parts; all others are modules like torch.nn's."""


def _load(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"seqnets.{name}")
    if name.startswith("_") or (not name[:1].isupper() and name not in __all__):
        raise AttributeError(f"module 'seqnets' has no attribute {name!r}")
    home = import_module(f"seqnets.{_HOMES.get(name, 'layers.torch_modules')}")
    try:  # further cells have torch.nn-like modules, too
        value = getattr(home, name)
    except AttributeError:
        raise AttributeError(f"module 'seqnets' has no attribute {name!r}") from None
    globals()[name] = value  # from now on without this function
    return value


if not TYPE_CHECKING:  # to type checkers, every name exists in a module with this function
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS, *import_module("seqnets.layers.torch_modules").names()})
