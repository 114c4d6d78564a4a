"""Callbacks of the training loop."""

from seqnets.training.callbacks.checkpoints import Checkpoints
from seqnets.training.callbacks.divergence import DivergenceGuard
from seqnets.training.callbacks.dynamics import Dynamics
from seqnets.training.callbacks.gradient_flow import GradientFlow
from seqnets.training.callbacks.graphs import CUDAGraphs
from seqnets.training.callbacks.hyperparameters import Hyperparameters
from seqnets.training.callbacks.model_card import ModelCard
from seqnets.training.callbacks.model_graph import ModelGraph
from seqnets.training.callbacks.monitor import Monitor
from seqnets.training.callbacks.moving_average import MovingAverage
from seqnets.training.callbacks.pictures import Pictures
from seqnets.training.callbacks.progress import Progress
from seqnets.training.callbacks.pruning import Pruning
from seqnets.training.callbacks.rates import RateByLength
from seqnets.training.callbacks.samples import MusicSamples, TextSamples
from seqnets.training.callbacks.signals import StopOnSignal
from seqnets.training.callbacks.stopping import EarlyStopping

__all__ = [
    "CUDAGraphs",
    "Checkpoints",
    "DivergenceGuard",
    "Dynamics",
    "EarlyStopping",
    "GradientFlow",
    "Hyperparameters",
    "ModelCard",
    "ModelGraph",
    "Monitor",
    "MovingAverage",
    "MusicSamples",
    "Pictures",
    "Progress",
    "Pruning",
    "RateByLength",
    "StopOnSignal",
    "TextSamples",
]
