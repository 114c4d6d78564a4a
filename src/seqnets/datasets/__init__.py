"""Data for training: one Lightning data module a dataset, all yielding the same ``Batch``.

A language model's text of your own is a subclass of :class:`LanguageData` with ``read_tokens``;
labelled sequences one of :class:`LabelledData`, and any other one of :class:`SequenceData`, with
``read_splits``.
"""

from seqnets.datasets.adding import Adding
from seqnets.datasets.base import DataModule
from seqnets.datasets.classification import LabelledData
from seqnets.datasets.copying import Copy
from seqnets.datasets.csv_sequences import CSVSequences
from seqnets.datasets.language import LanguageData
from seqnets.datasets.loader import Loader
from seqnets.datasets.music import PolyphonicMusic
from seqnets.datasets.parity import Parity
from seqnets.datasets.ptb import PennTreebank
from seqnets.datasets.python_docs import PythonDocs
from seqnets.datasets.sequences import SequenceData, SequenceLoader, Sequences, Splits
from seqnets.datasets.shakespeare import Shakespeare
from seqnets.datasets.streams import EvaluationStream, TrainingStream
from seqnets.datasets.synthetic import SyntheticData
from seqnets.datasets.text import TextFiles
from seqnets.datasets.tokens import Tokens
from seqnets.datasets.ucr import TimeSeriesFiles
from seqnets.datasets.vocabulary import Vocabulary

__all__ = [
    "Adding",
    "CSVSequences",
    "Copy",
    "DataModule",
    "EvaluationStream",
    "LabelledData",
    "LanguageData",
    "Loader",
    "Parity",
    "PennTreebank",
    "PolyphonicMusic",
    "PythonDocs",
    "SequenceData",
    "SequenceLoader",
    "Sequences",
    "Shakespeare",
    "Splits",
    "SyntheticData",
    "TextFiles",
    "TimeSeriesFiles",
    "Tokens",
    "TrainingStream",
    "Vocabulary",
]
