"""The dataset of a language model: a text, read as a stream of tokens."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import numpy as np

from seqnets.datasets.base import DataModule, Part, check_count, check_fractions
from seqnets.datasets.baselines import language_baselines
from seqnets.datasets.streams import EvaluationStream, Stream, TrainingStream
from seqnets.datasets.tokens import Tokens, build_tokens, cut
from seqnets.datasets.vocabulary import Unit, Vocabulary, check_unit, split
from seqnets.errors import DataError
from seqnets.typing import Sizes


class LanguageData(DataModule):
    """Next-token prediction over a text that a subclass's ``read_tokens`` gives.

    The parts are contiguous: first training, then validation, then test. The vocabulary is that of
    the training part (:meth:`~seqnets.datasets.Vocabulary.build` has the rule for the rest).

    Args:
        batch_size: Rows B of a batch for each process.
        chunk_length: Steps T of a batch, over which gradients flow.
        unit: What a token is, ``characters`` or ``words``.
        max_vocabulary: Most tokens of the vocabulary; the rarest become ``<unk>``.
        validation_fraction: Share of the text to choose by.
        test_fraction: Share of the text to report.
        seed: Decides where the training rows of each epoch begin.
    """

    def __init__(
        self,
        batch_size: int = 32,
        chunk_length: int = 128,
        unit: Unit = "characters",
        max_vocabulary: int | None = None,
        validation_fraction: float = 0.05,
        test_fraction: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_count(who, batch_size=batch_size, chunk_length=chunk_length)
        check_count(who, least=0, seed=seed)
        if max_vocabulary is not None:
            check_count(who, least=2, max_vocabulary=max_vocabulary)
        check_fractions(who, validation_fraction=validation_fraction, test_fraction=test_fraction)
        check_unit(who, unit)
        self.batch_size, self.chunk_length, self.seed = batch_size, chunk_length, seed
        self.max_vocabulary = max_vocabulary
        self.fractions: dict[Part, float] = {"val": validation_fraction, "test": test_fraction}
        self._unit: Unit = unit

    @abstractmethod
    def read_tokens(self) -> Tokens:
        """Return the whole text as token ids."""

    @cached_property
    def tokens(self) -> Tokens:
        """The text, read when first asked for."""
        return self.read_tokens()

    @property
    def unit(self) -> Unit:
        """What a token is: characters or words."""
        return self._unit

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the training part."""
        return self.tokens.vocabulary

    @property
    def sizes(self) -> Sizes:
        """The size of the vocabulary, as ``vocab_size``."""
        return {"vocab_size": len(self.vocabulary)}

    def counts(self) -> dict[str, int]:
        """Return the tokens of each part."""
        return {name: stop - start for name, (start, stop) in self.tokens.parts.items()}

    def setup(self, stage: str | None = None) -> None:
        """Read the text; check its ids and that each part fills the rows of a batch."""
        super().setup(stage)
        if (highest := int(np.max(self.tokens.ids))) >= len(self.vocabulary):
            raise DataError(
                f"{type(self).__name__}: token id {highest} came, expected ids below "
                f"{len(self.vocabulary)}, the size of the vocabulary."
            )

    def loader(self, part: Part) -> Stream:
        """Return a new loader of one part: random offsets for training, every token otherwise."""
        stream = TrainingStream if part == "train" else EvaluationStream
        return stream(
            self.tokens.part(part),
            self.batch_size,
            self.chunk_length,
            self.seed,
            name=f"{type(self).__name__}, {part} part",
        )

    def baselines(self) -> dict[str, float]:
        """Return bits a token (character or word) of simple rivals on the test part."""
        return language_baselines(self.tokens)

    def tokens_of(self, text: str) -> Tokens:
        """Return a text that is in memory as token ids, cut into parts by the fractions."""
        pieces = split(text, self.unit)
        parts = cut(len(pieces), self.fractions)
        return build_tokens(lambda: [pieces], parts, self.unit, self.max_vocabulary)
