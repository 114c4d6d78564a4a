"""What a step of tagged data is to a model: a word with its spelling, or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from seqnets.datasets.scaling import Scaling
from seqnets.datasets.vocabulary import UNKNOWN, Vocabulary
from seqnets.typing import Known, Sizes


class Words:
    """Words by number, with the bytes that they are written in.

    Args:
        vocabulary: The words that have numbers; ``<unk>`` is 0 and stands for all others.
        characters: Bytes of each word that come with it, from its beginning on; 0 for the number
            alone.
        lowercase: Whether a word and its capitalised forms have one number.
    """

    def __init__(self, vocabulary: Vocabulary, characters: int, lowercase: bool) -> None:
        self.vocabulary, self.characters, self.lowercase = vocabulary, characters, lowercase

    @classmethod
    def learn(
        cls, texts: Iterable[Sequence[str]], characters: int, lowercase: bool, min_count: int
    ) -> Words:
        """Give numbers to the words that come often enough; the others show what unknown is."""
        counts = Counter(w.lower() if lowercase else w for words in texts for w in words)
        kept = Counter({word: count for word, count in counts.items() if count >= min_count})
        return cls(Vocabulary.build(kept, "words"), characters, lowercase)

    @classmethod
    def known(cls, known: Known) -> Words:
        """As :meth:`describe` said."""
        return cls(Vocabulary(known["vocabulary"], "words"), **known["words"])

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the vocabulary."""
        return {"words": {"characters": self.characters, "lowercase": self.lowercase}}

    @property
    def sizes(self) -> Sizes:
        """The words there are."""
        return {"vocab_size": len(self.vocabulary)}

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """Return words as numbers, (T,) int64; with bytes behind them (T, 1 + characters)."""
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
        """Return the words of numbers, or of bytes if there are such; "…" ends a longer one."""
        if x.ndim == 1:
            shown = {UNKNOWN: "\ufffd"}
            return [shown.get(w, w) for w in (self.vocabulary.tokens[number] for number in x)]
        words = []
        for row in x[:, 1:]:
            word = bytes((row[row > 0] - 1).tolist()).decode(errors="ignore")
            words.append(f"{word}…" if row[-1] else word)
        return words


class Numbers:
    """Features, each with mean 0 and deviation 1 over the training part.

    Args:
        features: Their names.
        scaling: Their mean and deviation there.
    """

    def __init__(self, features: Sequence[str], scaling: Scaling) -> None:
        self.features, self.scaling = list(features), scaling

    @classmethod
    def learn(cls, features: Sequence[str], series: Iterable[Sequence[Sequence[float]]]) -> Numbers:
        """Measure the training part; a feature that is constant there is only shifted."""
        steps = [step for sequence in series for step in sequence]
        return cls(features, Scaling.of(torch.tensor(steps, dtype=torch.float64)))

    @classmethod
    def known(cls, known: Known) -> Numbers:
        """As :meth:`describe` said."""
        return cls(known["numbers"]["features"], Scaling.read(known["numbers"]))

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"numbers": {"features": self.features, **self.scaling.plain()}}

    @property
    def vocabulary(self) -> None:
        """Numbers have none."""
        return None

    @property
    def sizes(self) -> Sizes:
        """The features there are."""
        return {"input_size": len(self.features)}

    def encode(self, steps: Sequence[Sequence[float]]) -> np.ndarray:
        """Return scaled features, (T, I) float32."""
        scaled: np.ndarray = self.scaling(torch.tensor(steps, dtype=torch.float64)).numpy()
        return scaled


Inputs = Words | Numbers
"""Either of the two."""


def inputs_of(known: Known) -> Inputs | None:
    """What the steps of a trained model were, as a tagged dataset described it."""
    if known.get("words") is not None:
        return Words.known(known)
    return Numbers.known(known) if known.get("numbers") is not None else None


def joined(pieces: Sequence[np.ndarray]) -> torch.Tensor:
    """Sequences behind each other."""
    return torch.from_numpy(np.concatenate(pieces))
