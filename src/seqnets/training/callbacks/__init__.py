"""What happens around the training loop."""

from seqnets.training.callbacks.checkpoints import Checkpoints
from seqnets.training.callbacks.divergence import DivergenceGuard
from seqnets.training.callbacks.signals import StopOnSignal

__all__ = ["Checkpoints", "DivergenceGuard", "StopOnSignal"]
