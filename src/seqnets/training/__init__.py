"""Training: objectives, one module for all tasks, checkpoints, and what happens around the loop."""

from seqnets.training.averaging import NonMonotonicASGD
from seqnets.training.checkpoint import (
    AtomicCheckpointIO,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from seqnets.training.exporting import export
from seqnets.training.module import SequenceModule
from seqnets.training.objectives import (
    Classification,
    Forecasting,
    FramePrediction,
    LanguageModelling,
    Objective,
    Outcome,
    Polyphony,
    Regression,
    Row,
    Tagging,
    Transcription,
    Transduction,
)
from seqnets.training.schedules import Cosine, DelayedExponential

__all__ = [
    "AtomicCheckpointIO",
    "Classification",
    "Cosine",
    "DelayedExponential",
    "Forecasting",
    "FramePrediction",
    "LanguageModelling",
    "NonMonotonicASGD",
    "Objective",
    "Outcome",
    "Polyphony",
    "Regression",
    "Row",
    "SequenceModule",
    "Tagging",
    "Transcription",
    "Transduction",
    "export",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
