"""Datasets of texts with one label each."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from seqnets.checks import check_count
from seqnets.datasets.baselines.counting import majority_baseline
from seqnets.datasets.baselines.naive_bayes import naive_bayes
from seqnets.datasets.loader import Loader
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.readers.files import read_lines
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.datasets.text.vocabulary import Unit, Vocabulary
from seqnets.errors import DataError
from seqnets.typing import IGNORE, Known, Sizes


class Texts(NamedTuple):
    """Texts and their labels.

    Attributes:
        tokens: The tokens of each text, at least one.
        y: The class number of each text.
    """

    tokens: list[Sequence[str]]
    y: list[int]


class TextSplits(NamedTuple):
    """The three parts of a dataset of texts, and the names of its labels.

    Attributes:
        parts: The texts of each part, with their labels.
        labels: The names of the labels, by number.
    """

    parts: dict[Part, Texts]
    labels: list[str]


class LabelledTexts(SequenceData):
    """Texts with one label each, which a subclass's ``read_texts`` returns; classification.

    The vocabulary is that of the training part, with ``<unk>`` as id 0 for all other tokens.

    Attributes:
        token: Unit of a token.

    Args:
        min_count: How often a token must occur in the training part to have an id of its own;
            from the others the model learns ``<unk>``.
        batch_size: Sequences in a batch of each process.
        seed: Determines the order of the training sequences in each epoch.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
    """

    token: Unit = "words"

    def __init__(
        self, min_count: int = 2, batch_size: int = 32, seed: int = 0, bucket_batches: int = 50
    ) -> None:
        super().__init__(batch_size, seed, bucket_batches)
        check_count(type(self).__name__, min_count=min_count)
        self.min_count = min_count

    @abstractmethod
    def read_texts(self) -> TextSplits:
        """The texts of all parts."""

    @abstractmethod
    def tokens_of(self, text: str) -> Sequence[str]:
        """The tokens of a text, none of an empty one."""

    @cached_property
    def texts(self) -> TextSplits:
        """The texts, read on first access."""
        return self.read_texts()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """``<unk>``, and the tokens of the training part."""
        counts = Counter(token for tokens in self.texts.parts["train"].tokens for token in tokens)
        return Vocabulary.build(counts, self.token, unknown=True, min_count=self.min_count)

    @property
    def sizes(self) -> Sizes:
        """The size of the vocabulary, ``vocab_size``, and the number of labels, ``num_classes``."""
        return {"vocab_size": len(self.vocabulary), "num_classes": len(self.texts.labels)}

    def read_splits(self) -> Splits:
        """The texts of all parts as token ids."""
        parts = {part: _encode(self.vocabulary, *self.texts.parts[part]) for part in PARTS}
        return Splits(parts, self.texts.labels)

    def new(self, path: Path, known: Known) -> Loader:
        """Batches of a file with one text per line.

        Raises:
            DataError: The file is missing, or a line is empty.
        """
        texts = [self.tokens_of(line) for line in read_lines(path)]
        for number, tokens in enumerate(texts, start=1):
            if not len(tokens):
                raise DataError(f"{path}, line {number}: is empty, expected one text per line.")
        vocabulary = Vocabulary(known["vocabulary"], self.token)
        sequences = _encode(vocabulary, texts, [IGNORE] * len(texts))
        return SequenceLoader(sequences, self.batch_size, name=str(path))

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Evenly spaced texts of a part, and their labels."""
        tokens, y = self.of_part(self.texts.parts, part)
        return [
            {
                "text": self.vocabulary.separator.join(tokens[row]),
                "label": self.texts.labels[y[row]],
            }
            for row in range(0, len(y), math.ceil(len(y) / max(1, count)))[:count]
        ]

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent label and of naive Bayes."""
        train, test = self.part("train"), self.part("test")
        predicted = naive_bayes(train, test, **self.sizes)
        return {
            **majority_baseline(train.y, test.y),
            f"naive Bayes of {self.token}": float((predicted == test.y).double().mean()),
        }


def _encode(vocabulary: Vocabulary, tokens: Sequence[Sequence[str]], y: Sequence[int]) -> Sequences:
    return Sequences.of([vocabulary.index(each) for each in tokens], y)
