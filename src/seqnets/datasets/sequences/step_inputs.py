"""Model inputs of tagged data: words, optionally with their spelling, or features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from seqnets.datasets.readers.tagged import Tagged
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.times import Times, Timing
from seqnets.datasets.text.vocabulary import UNKNOWN, Vocabulary
from seqnets.typing import Known, Sizes


class Words:
    """Words as ids, optionally followed by their UTF-8 bytes.

    Args:
        vocabulary: The words with ids of their own; all others become ``<unk>``, id 0.
        characters: Maximum number of bytes per word, from its beginning; 0 for ids only.
        lowercase: Whether a word and its capitalised forms share one id.
    """

    def __init__(self, vocabulary: Vocabulary, characters: int, lowercase: bool) -> None:
        self.vocabulary, self.characters, self.lowercase = vocabulary, characters, lowercase

    @classmethod
    def learn(
        cls, texts: Iterable[Sequence[str]], characters: int, lowercase: bool, min_count: int
    ) -> Words:
        """Build the vocabulary from all words that occur at least ``min_count`` times."""
        counts = Counter(w.lower() if lowercase else w for words in texts for w in words)
        vocabulary = Vocabulary.build(counts, "words", min_count=min_count)
        return cls(vocabulary, characters, lowercase)

    @classmethod
    def restore(cls, known: Known) -> Words:
        """Restore the inputs from a dataset's metadata."""
        return cls(Vocabulary(known["vocabulary"], "words"), **known["words"])

    def describe(self) -> dict[str, Any]:
        """What a checkpoint stores, besides the vocabulary."""
        return {"words": {"characters": self.characters, "lowercase": self.lowercase}}

    @property
    def sizes(self) -> Sizes:
        """The size of the vocabulary, as ``vocab_size``."""
        return {"vocab_size": len(self.vocabulary)}

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """Ids, (T,) int64, or ids followed by bytes + 1, (T, 1 + characters) int64."""
        ids = self.vocabulary.index([word.lower() if self.lowercase else word for word in words])
        if not self.characters:
            return ids
        x = np.zeros((len(words), 1 + self.characters), np.int64)
        x[:, 0] = ids
        for row, word in zip(x, words, strict=True):
            data = np.frombuffer(word.encode()[: self.characters], np.uint8)
            row[1 : 1 + len(data)] = data.astype(np.int64) + 1
        return x

    def decode(self, x: np.ndarray) -> list[str]:
        """The words, from their bytes if there are any; "…" marks a truncated word."""
        if x.ndim == 1:
            shown = {UNKNOWN: "\ufffd"}
            return [shown.get(w, w) for w in (self.vocabulary.tokens[number] for number in x)]
        words = []
        for row in x[:, 1:]:
            word = bytes((row[row > 0] - 1).tolist()).decode(errors="ignore")
            words.append(f"{word}…" if row[-1] else word)
        return words


class Numbers:
    """Features, standardised over the training part.

    Args:
        features: Names of the features.
        scaling: Their means and standard deviations.
        times: What the last feature becomes before it is scaled, if it is the time.
    """

    vocabulary = None

    def __init__(
        self, features: Sequence[str], scaling: Scaling, times: Times | None = None
    ) -> None:
        self.features, self.scaling, self.times = list(features), scaling, times

    @classmethod
    def learn(cls, features: Sequence[str], series: Iterable[Sequence[Sequence[float]]]) -> Numbers:
        """Fit the scaling to the training part; constant features are only centred."""
        steps = [step for sequence in series for step in sequence]
        return cls(features, Scaling.of(torch.tensor(steps, dtype=torch.float64)))

    @classmethod
    def timed(cls, timing: Timing, train: Sequence[Tagged]) -> Numbers:
        """Fit the scaling, and the times, to the training part."""
        first, lengths = train[0], torch.tensor([len(sequence.steps) for sequence in train])
        steps = [step for sequence in train for step in sequence.steps]
        x = torch.tensor(steps, dtype=torch.float64)
        times = timing.learn(first.where, str(first.times), x, lengths)
        return cls(first.features, timing.scaling(Scaling.of(x), times), times)

    @classmethod
    def restore(cls, known: Known) -> Numbers:
        """Restore the inputs from a dataset's metadata."""
        numbers = known["numbers"]
        return cls(numbers["features"], Scaling.read(numbers), Times.known(known))

    def describe(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        times = {} if self.times is None else self.times.describe()
        return {"numbers": {"features": self.features, **self.scaling.plain()}, **times}

    @property
    def sizes(self) -> Sizes:
        """The number of features, as ``input_size``."""
        return {"input_size": len(self.features)}

    def encode(self, steps: Sequence[Sequence[float]]) -> np.ndarray:
        """Standardised features, (T, I) float32."""
        x = torch.tensor(steps, dtype=torch.float64)
        if self.times is not None:
            x = self.times(x, torch.tensor([len(x)]))
        return self.scaling(x).numpy()


Inputs = Words | Numbers
"""The inputs of a tagged dataset."""


def read_inputs(known: Known) -> Inputs | None:
    """Restore the inputs from a dataset's metadata; None if that is not a tagged dataset."""
    if known.get("words") is not None:
        return Words.restore(known)
    return Numbers.restore(known) if known.get("numbers") is not None else None
