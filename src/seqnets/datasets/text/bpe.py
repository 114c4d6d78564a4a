"""Byte pair encoding: text as pieces of words that are frequent in a training text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from seqnets.errors import ConfigError, DataError, counted
from seqnets.optional import optional

BYTES = 256
"""Tokens of single bytes, which every encoding has: no text is unknown."""


class BytePairEncoding:
    """Conversion of text to ids and back, by repeated merges of the most frequent pair of tokens.

    Every text can be encoded, and decoding restores it exactly. Tokens do not cross word
    boundaries; a token that begins a word contains the space before it.

    Attributes:
        specials: Tokens that no text contains, ids from 0; decoding skips them.

    References:
        Sennrich et al., 2016, "Neural Machine Translation of Rare Words with Subword Units",
        arXiv:1508.07909; over bytes as in Radford et al., 2019, "Language Models are Unsupervised
        Multitask Learners".

    Example:
        >>> pieces = BytePairEncoding.train(["so so so", "such"], size=260)
        >>> pieces.decode(pieces.encode("so much"))
        'so much'
    """

    def __init__(self, tokenizer: Any) -> None:
        tokenizer.encode_special_tokens = True  # in a text they are ordinary text
        self._tokenizer = tokenizer
        added = sorted(tokenizer.get_added_tokens_decoder().items())
        self.specials = [token.content for _, token in added]

    @classmethod
    def train(
        cls, texts: Iterable[str], size: int, specials: Sequence[str] = ()
    ) -> BytePairEncoding:
        """Learn the merges from some texts.

        Args:
            texts: Training texts; no token crosses from one into the next.
            size: Maximum number of tokens: the 256 bytes, specials and merged pairs.
            specials: Names of tokens beyond the text, which get ids 0, 1, ...

        Raises:
            ConfigError: ``size`` is too small for bytes and specials, or the library tokenizers is
                not installed.
        """
        if size < BYTES + len(specials):
            raise ConfigError(
                f"BytePairEncoding: size is {size}, expected at least {BYTES + len(specials)}.\n"
                f"  It has {BYTES} bytes and {counted(len(specials), 'special token')}, then "
                "pairs: raise dataset.max_vocabulary."
            )
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(specials),
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def tokens(self) -> list[str]:
        """The tokens by id, with letters for bytes: "Ġ" is a space."""
        return [self._tokenizer.id_to_token(number) for number in range(len(self))]

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self._tokenizer.encode(text).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        return [each.ids for each in self._tokenizer.encode_batch_fast(texts)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode([int(number) for number in ids])

    def to_json(self) -> str:
        """The encoding as JSON, for :meth:`from_json`."""
        return self._tokenizer.to_str()

    @classmethod
    def from_json(cls, text: str) -> BytePairEncoding:
        """Restore an encoding from JSON.

        Raises:
            DataError: The text is not an encoding as JSON.
            ConfigError: The library tokenizers is not installed.
        """
        library = _library()
        try:
            return cls(library.Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing narrower
            raise DataError(
                f"BytePairEncoding: got {text[:40]!r}, expected a tokenizer as JSON: {error}."
            ) from None


def _library() -> Any:
    """Import tokenizers with the submodules used here."""
    with optional("Byte pairs are made by tokenizers", "bpe"):
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: F401
    return tokenizers
