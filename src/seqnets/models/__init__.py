"""Models: embedding, recurrent stack and head, one for each shape of a task."""

from seqnets.models.classifier import SequenceClassifier, SequenceRegressor
from seqnets.models.encoder import Encoder
from seqnets.models.heads import Head
from seqnets.models.language_model import LanguageModel
from seqnets.models.tagger import SequenceTagger

__all__ = [
    "Encoder",
    "Head",
    "LanguageModel",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
]
