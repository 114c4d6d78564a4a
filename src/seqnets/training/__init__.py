"""Training: objectives, one module for all tasks, checkpoints, and what happens around the loop."""

from seqnets.training.checkpoint import (
    AtomicCheckpointIO,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from seqnets.training.module import SequenceModule
from seqnets.training.objectives import (
    Classification,
    LanguageModelling,
    Objective,
    Outcome,
    Polyphony,
    Regression,
    Row,
    Tagging,
)
from seqnets.training.schedules import Cosine, DelayedExponential

__all__ = [
    "AtomicCheckpointIO",
    "Classification",
    "Cosine",
    "DelayedExponential",
    "LanguageModelling",
    "Objective",
    "Outcome",
    "Polyphony",
    "Regression",
    "Row",
    "SequenceModule",
    "Tagging",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
