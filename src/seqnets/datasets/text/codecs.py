"""Codecs between texts and token ids, for sequence-to-sequence data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from seqnets.checks import check_choice
from seqnets.datasets.text.bpe import BytePairEncoding
from seqnets.datasets.text.vocabulary import LINE_END, UNKNOWN, Vocabulary, by_frequency, split
from seqnets.errors import ConfigError, DataError
from seqnets.typing import END

UNITS = ("words", "characters", "bpe")

UNKNOWN_ID = 1
"""The id of every token that a codec's list lacks."""

FOREIGN = "\ufffd"
"""The text shown for an unknown token in a reference, so that no prediction can equal it."""


class Codec(ABC):
    """Conversion of texts to token ids and back. Id ``END``, 0, ends a sequence."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of tokens."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, (T,) int64, without ``END``."""

    @abstractmethod
    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN) -> str:
        """The text of ids up to the first ``END`` or negative id.

        Args:
            ids: Token ids.
            unknown: The text written for unknown tokens.
        """

    @abstractmethod
    def pieces(self, ids: Iterable[int]) -> list[str]:
        """A label for each token, up to and including the first ``END``."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The plain values from which :func:`read_codec` restores the codec."""


class TokenCodec(Codec):
    """A codec with a fixed list of words or characters; all others become ``<unk>``.

    Args:
        tokens: All tokens by id: the end, ``<unk>``, and those of the texts.
        unit: "words" or "characters".
    """

    def __init__(self, tokens: Sequence[str], unit: str = "words") -> None:
        self.vocabulary = Vocabulary(tokens, unit)

    @classmethod
    def fit(
        cls, texts: Iterable[str], unit: str, size: int | None, min_count: int = 1
    ) -> TokenCodec:
        """Build a codec from the most frequent tokens of some texts.

        Args:
            texts: The texts.
            unit: "words" or "characters".
            size: Maximum number of tokens; unlimited if None.
            min_count: How often a token must occur to be listed.
        """
        end = _end(unit)
        counts = Counter(token for text in texts for token in split(text, unit))
        kept = [t for t in by_frequency(counts, min_count) if t not in (end, UNKNOWN)]
        return cls([end, UNKNOWN, *(kept if size is None else kept[: size - 2])], unit)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text; a word spelled like the end becomes unknown."""
        index, unit = self.vocabulary.index, self.vocabulary.unit
        found = [index(split(text, unit)) for text in texts]
        return [np.where(ids == END, UNKNOWN_ID, ids) for ids in found]

    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN) -> str:
        """The text of ids up to the first ``END``."""
        tokens = (self.vocabulary.tokens[number] for number in _until_end(ids))
        return self.vocabulary.separator.join(unknown if t == UNKNOWN else t for t in tokens)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each token, with white space made visible."""
        tokens = (self.vocabulary.tokens[number] for number in _until_end(ids, with_end=True))
        return [_visible(token) for token in tokens]

    def describe(self) -> dict[str, Any]:
        """The unit and the tokens."""
        return {"unit": self.vocabulary.unit, "tokens": list(self.vocabulary.tokens)}


class BytePairCodec(Codec):
    """A codec of byte pairs, to which no text is unknown.

    Args:
        encoding: The byte pair encoding, whose first special token is the end.
    """

    def __init__(self, encoding: BytePairEncoding) -> None:
        self.encoding = encoding

    @classmethod
    def fit(cls, texts: Iterable[str], size: int) -> BytePairCodec:
        """Learn an encoding of ``size`` tokens from some texts."""
        return cls(BytePairEncoding.train(texts, size, specials=[LINE_END]))

    def __len__(self) -> int:
        return len(self.encoding)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text."""
        return [np.array(ids, np.int64) for ids in self.encoding.encode_all(texts)]

    def decode(self, ids: Iterable[int], unknown: str = UNKNOWN) -> str:
        """The text of ids up to the first ``END``."""
        return self.encoding.decode(_until_end(ids))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each piece; "▁" (U+2581) stands for the space before it."""
        kept = _until_end(ids, with_end=True)
        return [LINE_END if n == END else _visible(self.encoding.decode([n])) for n in kept]

    def describe(self) -> dict[str, Any]:
        """The encoding as JSON."""
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
    """The codecs of source and target, fitted to the training texts.

    Args:
        source: Source texts.
        target: Target texts.
        unit: "words", "characters" or "bpe".
        size: Maximum number of tokens of a codec; unlimited if None, which "bpe" does not allow.
        min_count: How often a word or character must occur to be listed.
        joint: Whether source and target share one codec, fitted to both.
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
    """Restore a codec from what its ``describe`` returned.

    Raises:
        DataError: The values do not describe a codec.
    """
    if known.get("unit") == "bpe":
        return BytePairCodec(BytePairEncoding.from_json(known["json"]))
    if "tokens" not in known:
        raise DataError(
            f"Codec: got {', '.join(known)}, expected a unit and its tokens.\n"
            "  The dataset has no source and target texts."
        )
    return TokenCodec(known["tokens"], known["unit"])


def check_codec_options(who: str, unit: str, size: int | None) -> None:
    """Raise ConfigError if the unit is unknown, or if it needs a size and has none."""
    check_choice(who, UNITS, unit=unit)
    if unit == "bpe" and size is None:
        raise ConfigError(
            f"{who}: max_vocabulary is None, expected a number of tokens.\n"
            "  Byte pairs are merged until there are that many."
        )


def _end(unit: str) -> str:
    """The token listed for ``END``: one that no text of this unit contains."""
    return "\n" if unit == "characters" else LINE_END


def _until_end(ids: Iterable[int], with_end: bool = False) -> list[int]:
    """The ids before the first ``END`` or negative id, with that ``END`` if asked for."""
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
