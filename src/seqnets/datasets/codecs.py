"""Texts to token ids and back, for what reads one sequence and writes another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seqnets.checks import check_choice
from seqnets.datasets.bpe import BytePairEncoding
from seqnets.datasets.vocabulary import LINE_END, UNKNOWN, Vocabulary, split
from seqnets.errors import ConfigError, DataError
from seqnets.typing import END

UNITS = ("words", "characters", "bpe")

UNKNOWN_ID = 1
"""The id of what a list of tokens leaves out."""

FOREIGN = "\ufffd"
"""What a token of a text that the vocabulary lacks is shown as, where it was right."""


class Codec(ABC):
    """Texts to ids and back. Id ``END``, 0, ends a sequence and is in no text."""

    @abstractmethod
    def __len__(self) -> int:
        """Tokens there are."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, int64, without the end."""

    @abstractmethod
    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN) -> str:
        """Return the text of ids up to the first ``END`` or negative one.

        Args:
            ids: Token ids; what stands past the end is left out.
            unknown: What the token for all that is unknown is written as.
        """

    @abstractmethod
    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return each token as a label of its own, up to and with the first ``END``."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what :func:`read_codec` takes, as plain values."""


class TokenCodec(Codec):
    """Words, or characters, of a list; the second entry stands for all that is not in it.

    Args:
        tokens: All tokens: the end, ``<unk>``, and those of the texts.
        unit: "words" or "characters".
    """

    def __init__(self, tokens: Sequence[str], unit: str = "words") -> None:
        self.vocabulary = Vocabulary(tokens, unit)

    @classmethod
    def fit(
        cls, texts: Iterable[str], unit: str, size: int | None, min_count: int = 1
    ) -> TokenCodec:
        """Take the commonest tokens of some texts."""
        end = _end(unit)
        counts = Counter(token for text in texts for token in split(text, unit))
        kept = [t for t, n in counts.items() if n >= min_count and t not in (end, UNKNOWN)]
        kept.sort(key=lambda token: (-counts[token], token))
        return cls([end, UNKNOWN, *(kept if size is None else kept[: size - 2])], unit)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text; a word that looks like the end is unknown."""
        index, unit = self.vocabulary.index, self.vocabulary.unit
        found = [index(split(text, unit)) for text in texts]
        return [np.where(ids == END, UNKNOWN_ID, ids) for ids in found]

    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN) -> str:
        """Return the text of ids up to the first end."""
        tokens = (self.vocabulary.tokens[number] for number in _until_end(ids))
        return self.vocabulary.separator.join(unknown if t == UNKNOWN else t for t in tokens)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return each token; white space is made visible."""
        names = (self.vocabulary.tokens[number] for number in _until_end(ids, with_end=True))
        return [_visible(name) for name in names]

    def describe(self) -> dict[str, Any]:
        """Return unit and tokens."""
        return {"unit": self.vocabulary.unit, "tokens": list(self.vocabulary.tokens)}


class BytePairCodec(Codec):
    """Pieces of words: nothing is unknown."""

    def __init__(self, encoding: BytePairEncoding) -> None:
        self.encoding = encoding

    @classmethod
    def fit(cls, texts: Iterable[str], size: int) -> BytePairCodec:
        """Learn pieces of some texts."""
        return cls(BytePairEncoding.train(texts, size, specials=[LINE_END]))

    def __len__(self) -> int:
        return len(self.encoding)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text."""
        return [np.array(ids, np.int64) for ids in self.encoding.encode_all(texts)]

    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN) -> str:
        """Return the text of ids up to the first end."""
        return self.encoding.decode(_until_end(ids))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return each piece; a low bar stands for the space before it."""
        whole = _until_end(ids, with_end=True)
        return [LINE_END if n == END else _visible(self.encoding.decode([n])) for n in whole]

    def describe(self) -> dict[str, Any]:
        """Return the encoding as JSON."""
        return {"unit": "bpe", "json": self.encoding.to_json()}


def fit_codecs(
    source: Sequence[str],
    target: Sequence[str],
    *,
    unit: str,
    size: int | None,
    min_count: int,
    joint: bool,
) -> tuple[Codec, Codec]:
    """Make the codecs of the two sides from the texts of the training part.

    Args:
        source: Texts that are read.
        target: Texts that are written.
        unit: "words", "characters" or "bpe".
        size: Most tokens of a codec; all there are if None, which "bpe" does not take.
        min_count: How often a word or character must stand there to be known.
        joint: Whether one codec, made of both sides, is that of both.
    """
    sides = [[*source, *target]] if joint else [source, target]
    codecs: list[Codec] = [
        BytePairCodec.fit(texts, size or 0)
        if unit == "bpe"
        else TokenCodec.fit(texts, unit, size, min_count)
        for texts in sides
    ]
    return codecs[0], codecs[-1]


def read_codec(known: Mapping[str, Any]) -> Codec:
    """Return the codec that a checkpoint keeps.

    Raises:
        DataError: It is none.
    """
    if known.get("unit") == "bpe":
        return BytePairCodec(BytePairEncoding.from_json(known["json"]))
    if "tokens" not in known:
        raise DataError(
            f"Codec: got {', '.join(known)}, expected a unit and its tokens.\n"
            "  The dataset has no texts that are read and written."
        )
    return TokenCodec(known["tokens"], known["unit"])


def check_codec_options(who: str, unit: str, size: int | None) -> None:
    """Raise ConfigError if a unit is none, or has no size where it needs one."""
    check_choice(who, UNITS, unit=unit)
    if unit == "bpe" and size is None:
        raise ConfigError(
            f"{who}: max_vocabulary is None, expected a number of tokens.\n"
            "  Byte pairs are merged until there are so many."
        )


def _end(unit: str) -> str:
    return "\n" if unit == "characters" else LINE_END


def _until_end(ids: Iterable[int], with_end: bool = False) -> list[int]:
    kept: list[int] = []
    for number in map(int, ids):
        if number == END and with_end:
            kept.append(number)
        if number == END or number < 0:
            break
        kept.append(number)
    return kept


def _visible(token: str) -> str:
    return LINE_END if token == "\n" else token.replace(" ", "\u2581")
