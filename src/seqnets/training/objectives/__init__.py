"""Objectives: a loss and its metrics, one for each kind of task."""

from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.classification import Classification
from seqnets.training.objectives.forecasting import Forecasting
from seqnets.training.objectives.frames import FramePrediction
from seqnets.training.objectives.language import LanguageModelling
from seqnets.training.objectives.polyphony import Polyphony
from seqnets.training.objectives.regression import Regression
from seqnets.training.objectives.tagging import Tagging
from seqnets.training.objectives.transcription import Transcription
from seqnets.training.objectives.transduction import Transduction

__all__ = [
    "Classification",
    "Forecasting",
    "FramePrediction",
    "LanguageModelling",
    "Objective",
    "Outcome",
    "Polyphony",
    "Regression",
    "Row",
    "Tagging",
    "Transcription",
    "Transduction",
]
