"""Layers: modules over batches of sequences."""

from seqnets.layers.bidirectional import Bidirectional
from seqnets.layers.deep import CellFactory, DeepRNN
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.state import detach, map_state
from seqnets.layers.stream import Stream
from seqnets.layers.truncated import Truncated

__all__ = [
    "Bidirectional",
    "CellFactory",
    "DeepRNN",
    "Recurrent",
    "Stream",
    "Truncated",
    "detach",
    "map_state",
]
