"""Models: embedding, recurrent stack and head, one for each shape of a task."""

from seqnets.models.attention import Attention, BahdanauAttention, LuongAttention
from seqnets.models.classifier import SequenceClassifier, SequenceRegressor
from seqnets.models.crf import ConditionalRandomField
from seqnets.models.ctc import best_path, ctc_loss, prefix_beam_search
from seqnets.models.decode import Decoded, beam_search, greedy
from seqnets.models.decoder import Decoder
from seqnets.models.dropped_embedding import DroppedEmbedding
from seqnets.models.encoder import Encoder
from seqnets.models.forecaster import Forecaster
from seqnets.models.heads import Head
from seqnets.models.horizons import Direct, EncoderDecoder, Parallel, Recursive
from seqnets.models.language_model import LanguageModel
from seqnets.models.number_heads import (
    GaussianHead,
    NegativeBinomialHead,
    NumberHead,
    PointHead,
    QuantileHead,
)
from seqnets.models.sequence_to_sequence import SequenceToSequence
from seqnets.models.softmax import AdaptiveSoftmax, FusedSoftmax, SoftmaxHead
from seqnets.models.tagger import SequenceTagger
from seqnets.models.transcriber import Transcriber
from seqnets.models.video import FramePredictor, VideoClassifier
from seqnets.models.words import WordEmbedding

__all__ = [
    "AdaptiveSoftmax",
    "Attention",
    "BahdanauAttention",
    "ConditionalRandomField",
    "Decoded",
    "Decoder",
    "Direct",
    "DroppedEmbedding",
    "Encoder",
    "EncoderDecoder",
    "Forecaster",
    "FramePredictor",
    "FusedSoftmax",
    "GaussianHead",
    "Head",
    "LanguageModel",
    "LuongAttention",
    "NegativeBinomialHead",
    "NumberHead",
    "Parallel",
    "PointHead",
    "QuantileHead",
    "Recursive",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
    "SequenceToSequence",
    "SoftmaxHead",
    "Transcriber",
    "VideoClassifier",
    "WordEmbedding",
    "beam_search",
    "best_path",
    "ctc_loss",
    "greedy",
    "prefix_beam_search",
]
