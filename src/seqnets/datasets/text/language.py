"""Language model datasets: a text as a stream of tokens."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_count, check_fractions
from seqnets.datasets.base import DataModule
from seqnets.datasets.baselines.counting import histogram, language_baselines
from seqnets.datasets.loader import Loader
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.files import check_text, read_text
from seqnets.datasets.text.codecs import check_codec_options
from seqnets.datasets.text.pieces import PieceVocabulary, read_vocabulary
from seqnets.datasets.text.streams import EvaluationStream, Stream, TrainingStream
from seqnets.datasets.text.tokens import Tokens, build_tokens, cut
from seqnets.datasets.text.vocabulary import Vocabulary, split
from seqnets.errors import ConfigError, DataError
from seqnets.typing import Known, Sizes


class LanguageData(DataModule):
    """Next-token prediction over a text that a subclass's ``read_tokens`` returns.

    The parts are contiguous: training, validation, test. The vocabulary is that of the training
    part; see :meth:`~seqnets.datasets.Vocabulary.build` for other tokens.

    Args:
        batch_size: Rows B in a batch of each process.
        chunk_length: Steps T of a batch, over which gradients flow.
        chunk_spread: Standard deviation of the training batches' lengths, in steps, from 0 to
            ``chunk_length``; above 0, one batch in twenty also has half the length (Merity et al.,
            2018, with 5 for a ``chunk_length`` of 70).
        unit: Unit of a token: "characters", "words" or "bpe" for byte pairs
            (:class:`~seqnets.datasets.BytePairEncoding`), to which no text is unknown.
        max_vocabulary: Maximum size of the vocabulary; rarer tokens become ``<unk>``. For byte
            pairs, the number of tokens to learn.
        validation_fraction: Fraction of the text for validation.
        test_fraction: Fraction of the text for the test.
        seed: Determines where the training rows of each epoch start.

    Raises:
        ConfigError: An option is out of range, or "bpe" comes without ``max_vocabulary``.
    """

    def __init__(
        self,
        batch_size: int = 32,
        chunk_length: int = 128,
        unit: str = "characters",
        max_vocabulary: int | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        seed: int = 0,
        chunk_spread: float = 0.0,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_count(who, batch_size=batch_size, chunk_length=chunk_length)
        check_count(who, least=0, seed=seed)
        if not 0 <= chunk_spread <= chunk_length:
            raise ConfigError(
                f"{who}: chunk_spread is {chunk_spread}, expected from 0 to chunk_length, "
                f"{chunk_length}."
            )
        if max_vocabulary is not None:
            check_count(who, least=2, max_vocabulary=max_vocabulary)
        check_fractions(who, validation_fraction=validation_fraction, test_fraction=test_fraction)
        check_codec_options(who, unit, max_vocabulary)
        self.batch_size, self.chunk_length, self.seed = batch_size, chunk_length, seed
        self.chunk_spread, self.max_vocabulary = chunk_spread, max_vocabulary
        self.fractions: dict[Part, float] = {"val": validation_fraction, "test": test_fraction}
        self.unit = unit

    @abstractmethod
    def read_tokens(self) -> Tokens:
        """The whole text as token ids."""

    @cached_property
    def tokens(self) -> Tokens:
        """The text, read on first access."""
        return self.read_tokens()

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the training part."""
        return self.tokens.vocabulary

    @property
    def sizes(self) -> Sizes:
        """The size of the vocabulary, as ``vocab_size``."""
        return {"vocab_size": len(self.vocabulary)}

    def counts(self) -> dict[str, int]:
        """The number of tokens in each part."""
        return {name: stop - start for name, (start, stop) in self.tokens.parts.items()}

    def setup(self, stage: str | None = None) -> None:
        """Read the text; check its ids and that each part fills the rows of a batch.

        Raises:
            DataError: The text is too short, or has one token alone, or ids beyond the vocabulary.
        """
        super().setup(stage)
        if (highest := int(np.max(self.tokens.ids))) >= len(self.vocabulary):
            raise DataError(
                f"{type(self).__name__}: got token id {highest}, expected ids below "
                f"{len(self.vocabulary)}, the size of the vocabulary."
            )
        train = self.tokens.part("train")
        if train.min() == train.max():
            raise DataError(
                f"{type(self).__name__}: the training part is {self.token_name(int(train[0]))!r} "
                f"again and again, {len(train):,} times, expected different tokens.\n"
                f"  The unit is {self.unit!r}."
            )

    def loader(self, part: Part) -> Stream:
        """A new loader of one part: random offsets for training, every token otherwise."""
        ids, name = self._ids(part), self.name_of(part)
        sizes = self.batch_size, self.chunk_length
        if part == "train":
            return TrainingStream(ids, *sizes, self.seed, name, spread=self.chunk_spread)
        return EvaluationStream(ids, *sizes, name=name)

    def token_counts(self, part: Part) -> np.ndarray:
        """How often each token occurs in a part, (V,)."""
        return histogram(self._ids(part), len(self.vocabulary))

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The beginning of a part, in excerpts."""
        ids, length = self._ids(part), 200 if self.unit == "characters" else 40
        excerpts = [ids[n * length : (n + 1) * length] for n in range(count)]
        return [{"text": self.vocabulary.decode(each)} for each in excerpts if len(each)]

    def numbers(self, part: Part) -> list[np.ndarray]:
        """The ids of a part."""
        return [self._ids(part)]

    def _ids(self, part: Part) -> np.ndarray:
        self.of_part(self.tokens.parts, part)  # says which parts there are
        return self.tokens.part(part)

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including the whole vocabulary."""
        return {**super().describe(), **self.vocabulary.describe()}

    def new(self, path: Path, known: Known) -> Loader:
        """A stream of a user's text, in which each token is predicted from those before.

        Raises:
            DataError: The file is missing, empty or not UTF-8, or has a character that the model
                does not know; the message says in which line.
        """
        check_text(path, nul=True)
        text, vocabulary = "".join(read_text(path)), read_vocabulary(known)
        if vocabulary.unit == "characters" and vocabulary.unknown is None:
            _check_characters(path, text, set(vocabulary.tokens))
        ids = vocabulary.encode(text).numpy()
        return EvaluationStream(ids, 1, self.chunk_length, name=str(path))

    def baselines(self) -> dict[str, float]:
        """The test part's bits per token of simple models; for byte pairs, per character."""
        baselines = language_baselines(self.tokens)
        if not isinstance(self.vocabulary, PieceVocabulary):
            return baselines
        counts = self.token_counts("test")
        tokens_per_character = float(counts.sum() / (counts @ self.vocabulary.characters))
        return {name: bits * tokens_per_character for name, bits in baselines.items()}

    def tokens_of(self, text: str) -> Tokens:
        """The token ids of a text in memory, split into parts by the fractions."""
        units = split(text, self.unit)
        parts = cut(len(units), self.fractions)
        return build_tokens(lambda: [units], parts, self.unit, self.max_vocabulary)


def _check_characters(path: Path, text: str, known: set[str]) -> None:
    """Raise DataError for the first character that the model does not know."""
    place = next((n for n, character in enumerate(text) if character not in known), None)
    if place is not None:
        raise DataError(
            f"{path}, line {text.count(chr(10), 0, place) + 1:,}: got character {text[place]!r}, "
            f"expected one of the {len(known):,} of the training text.\n  Leave it out."
        )
