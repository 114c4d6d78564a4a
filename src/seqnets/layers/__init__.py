"""Layers: modules over batches of sequences."""

from seqnets.layers.bidirectional import Bidirectional, Reversed
from seqnets.layers.call_names import names_of_calls
from seqnets.layers.convolution import ConvFront1d, ConvFront2d, Fronted
from seqnets.layers.deep import CellFactory, DeepRNN
from seqnets.layers.dropout import LockedDropout
from seqnets.layers.explaining import Explanations, explain
from seqnets.layers.fixed_points import FixedPoints, fixed_points
from seqnets.layers.gradient_flow import gradient_flow
from seqnets.layers.hierarchical import Hierarchical
from seqnets.layers.linear import Linear
from seqnets.layers.online import RTRL
from seqnets.layers.output import DeepOutput
from seqnets.layers.own_past import EProp, SnAp1
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.serving import Stream
from seqnets.layers.state import detach, map_state
from seqnets.layers.truncated import Truncated
from seqnets.layers.video import Video
from seqnets.layers.watching import Watched, WatchedLayer, watch, watch_layers

__all__ = [
    "RTRL",
    "Bidirectional",
    "CellFactory",
    "ConvFront1d",
    "ConvFront2d",
    "DeepOutput",
    "DeepRNN",
    "EProp",
    "Explanations",
    "FixedPoints",
    "Fronted",
    "Hierarchical",
    "Linear",
    "LockedDropout",
    "Recurrent",
    "Reversed",
    "SnAp1",
    "Stream",
    "Truncated",
    "Video",
    "Watched",
    "WatchedLayer",
    "detach",
    "explain",
    "fixed_points",
    "gradient_flow",
    "map_state",
    "names_of_calls",
    "watch",
    "watch_layers",
]
