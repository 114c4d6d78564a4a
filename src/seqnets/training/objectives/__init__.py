"""What is learned, and how it is measured: one objective for each shape of a task."""

from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.classification import Classification
from seqnets.training.objectives.language import LanguageModelling
from seqnets.training.objectives.polyphony import Polyphony
from seqnets.training.objectives.regression import Regression
from seqnets.training.objectives.tagging import Tagging

__all__ = [
    "Classification",
    "LanguageModelling",
    "Objective",
    "Outcome",
    "Polyphony",
    "Regression",
    "Row",
    "Tagging",
]
