"""Text as pieces of words that a training text has often: nothing is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from seqnets.errors import ConfigError, DataError
from seqnets.optional import optional

BYTES = 256
"""Every text can be spelled in bytes: these tokens every encoding has."""


class BytePairEncoding:
    """Text to ids and back, by merging the commonest neighbours of bytes again and again.

    Every text has ids, and decoding gives it back to the letter. Pieces do not cross from one word
    into the next; a piece that begins a word holds the space before it.

    Attributes:
        specials: Tokens that no text contains, ids from 0 on; decoding leaves them out.

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
        tokenizer.encode_special_tokens = True  # what looks like one in a text is text
        self._tokenizer = tokenizer
        added = sorted(tokenizer.get_added_tokens_decoder().items())
        self.specials = [token.content for _, token in added]

    @classmethod
    def train(
        cls, texts: Iterable[str], size: int, specials: Sequence[str] = ()
    ) -> BytePairEncoding:
        """Learn the pieces of some texts.

        Args:
            texts: What to learn from, piece by piece.
            size: Most tokens to have: the 256 bytes, specials and what is merged.
            specials: Names of tokens beside the text, which get ids 0, 1, ...

        Raises:
            ConfigError: ``size`` has no room for bytes and specials, or tokenizers is missing.
        """
        if size < BYTES + len(specials):
            raise ConfigError(
                f"BytePairEncoding: size is {size}, expected at least {BYTES + len(specials)}.\n"
                f"  {BYTES} bytes and {len(specials)} special tokens are in every encoding."
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
        """The pieces by id, to be looked at: a space shows as Ġ, other bytes as other letters."""
        return [self._tokenizer.id_to_token(number) for number in range(len(self))]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._tokenizer.encode(text).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""
        return [each.ids for each in self._tokenizer.encode_batch_fast(texts)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids; bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer.decode([int(number) for number in ids])

    def to_json(self) -> str:
        """Return the encoding as the text that :meth:`from_json` reads."""
        return self._tokenizer.to_str()

    @classmethod
    def from_json(cls, text: str) -> BytePairEncoding:
        """Return the encoding that :meth:`to_json` wrote.

        Raises:
            DataError: The text is no such thing.
            ConfigError: tokenizers is missing.
        """
        library = _library()
        try:
            return cls(library.Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing narrower
            raise DataError(
                f"BytePairEncoding: got {text[:40]!r}, expected a tokenizer as JSON: {error}."
            ) from None


def _library() -> Any:
    with optional("Byte pairs are made by tokenizers", "bpe"):
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: F401
    return tokenizers
