"""Data for training: one Lightning data module per dataset, all yielding the same ``Batch``.

To add a dataset, subclass :class:`LanguageData` and define ``read_tokens`` for the text of a
language model, or define ``read_splits`` in a subclass of :class:`LabelledData` for labelled
sequences, or of :class:`SequenceData` for any other sequences.
"""

from seqnets.datasets.base import DataModule
from seqnets.datasets.files.classification import ClassificationFiles
from seqnets.datasets.files.pairs import PairFiles
from seqnets.datasets.files.regression import RegressionFiles
from seqnets.datasets.files.sequences import SequenceFiles
from seqnets.datasets.files.series import SeriesTable
from seqnets.datasets.files.tagging import TaggingFiles
from seqnets.datasets.files.text import TextFiles
from seqnets.datasets.files.transcription import TranscriptionFiles
from seqnets.datasets.loader import Loader
from seqnets.datasets.published.digits import Digits
from seqnets.datasets.published.etth import ETTh1
from seqnets.datasets.published.mnist import MNIST
from seqnets.datasets.published.multi30k import Multi30k
from seqnets.datasets.published.music import PolyphonicMusic
from seqnets.datasets.published.ptb import PennTreebank
from seqnets.datasets.published.python_docs import PythonDocs
from seqnets.datasets.published.shakespeare import Shakespeare
from seqnets.datasets.published.sst import StanfordSentiment
from seqnets.datasets.published.surnames import Surnames
from seqnets.datasets.published.ucr import TimeSeriesFiles
from seqnets.datasets.published.wnut17 import WNUT17
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.classification import LabelledData
from seqnets.datasets.sequences.labelled_texts import LabelledTexts, Texts, TextSplits
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.datasets.sequences.pairs import PairData, PairLoader, Pairs
from seqnets.datasets.sequences.pixels import Pictures, PixelSequences
from seqnets.datasets.sequences.sequences import NextSteps, Sequences, Splits
from seqnets.datasets.sequences.tagging import TaggedData
from seqnets.datasets.sequences.text_pairs import TextPairs
from seqnets.datasets.series.data import SeriesData
from seqnets.datasets.series.series import Series
from seqnets.datasets.series.windows import Windows
from seqnets.datasets.synthetic.adding import Adding
from seqnets.datasets.synthetic.base import SyntheticData
from seqnets.datasets.synthetic.copying import Copy
from seqnets.datasets.synthetic.digit_strings import DigitStrings
from seqnets.datasets.synthetic.dyck import Dyck
from seqnets.datasets.synthetic.moving_digits import DigitVideos, MovingDigits, MovingDigitsNext
from seqnets.datasets.synthetic.parity import Parity
from seqnets.datasets.synthetic.recall import Recall
from seqnets.datasets.synthetic.rewriting import Repeat, Rewriting, Sort
from seqnets.datasets.text.bpe import BytePairEncoding
from seqnets.datasets.text.codecs import BytePairCodec, Codec, TokenCodec, read_codec
from seqnets.datasets.text.language import LanguageData
from seqnets.datasets.text.pieces import PieceVocabulary, read_vocabulary
from seqnets.datasets.text.streams import EvaluationStream, TrainingStream
from seqnets.datasets.text.tokens import Tokens
from seqnets.datasets.text.vocabulary import Vocabulary

__all__ = [
    "MNIST",
    "WNUT17",
    "Adding",
    "BytePairCodec",
    "BytePairEncoding",
    "ClassificationFiles",
    "Codec",
    "Copy",
    "DataModule",
    "DigitStrings",
    "DigitVideos",
    "Digits",
    "Dyck",
    "ETTh1",
    "EvaluationStream",
    "LabelledData",
    "LabelledTexts",
    "LanguageData",
    "Loader",
    "MovingDigits",
    "MovingDigitsNext",
    "Multi30k",
    "NextSteps",
    "PairData",
    "PairFiles",
    "PairLoader",
    "Pairs",
    "Parity",
    "PennTreebank",
    "Pictures",
    "PieceVocabulary",
    "PixelSequences",
    "PolyphonicMusic",
    "PythonDocs",
    "Recall",
    "RegressionFiles",
    "Repeat",
    "Rewriting",
    "SequenceData",
    "SequenceFiles",
    "SequenceLoader",
    "Sequences",
    "Series",
    "SeriesData",
    "SeriesTable",
    "Shakespeare",
    "Sort",
    "Splits",
    "StanfordSentiment",
    "Surnames",
    "SyntheticData",
    "TaggedData",
    "TaggingFiles",
    "TextFiles",
    "TextPairs",
    "TextSplits",
    "Texts",
    "TimeSeriesFiles",
    "TokenCodec",
    "Tokens",
    "TrainingStream",
    "TranscriptionFiles",
    "Vocabulary",
    "Windows",
    "read_codec",
    "read_vocabulary",
]
