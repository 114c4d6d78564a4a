"""Embedding of words by the word itself and by its spelling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets.checks import check_count, check_probability
from seqnets.errors import ConfigError, DtypeError

BYTES = 257
"""Number of byte codes: 0 for padding, else a byte of the word in UTF-8, plus one."""


class WordEmbedding(nn.Module):
    """Embed words together with their spelling: a vector per word, and convolutions over bytes.

    The spelling represents words that the vocabulary lacks, by their letters, capitals, digits and
    endings: each filter spans three bytes, and its maximum over the word is kept.

    Args:
        vocab_size: Number of words, V.
        embedding_size: Features of a word, of both kinds together.
        characters: The most bytes of a word that are used, from its beginning.
        filters: Features from the spelling; fewer than ``embedding_size``.
        byte_size: Features of a byte.
        dropout: Probability in [0, 1) of replacing a word by the unknown one in training, so that
            the spelling is learned, too.

    Raises:
        ConfigError: ``filters`` is not below ``embedding_size``, or another option is out of range.

    References:
        Ma and Hovy, 2016, "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF",
        arXiv:1603.01354.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        *,
        characters: int = 20,
        filters: int = 50,
        byte_size: int = 25,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < filters < embedding_size:
            raise ConfigError(
                f"WordEmbedding: filters is {filters} with embedding_size {embedding_size}, "
                "expected a number above 0 and below embedding_size."
            )
        check_count("WordEmbedding", characters=characters, byte_size=byte_size)
        check_probability("WordEmbedding", dropout=dropout)
        self.characters, self.dropout = characters, dropout
        self.words = nn.Embedding(vocab_size, embedding_size - filters)
        self.bytes = nn.Embedding(BYTES, byte_size, padding_idx=0)
        self.convolution = nn.Conv1d(byte_size, filters, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of words, (B, T, E).

        Args:
            x: (B, T, 1 + characters) int64: a word's id, 0 if unknown, then its bytes plus one, 0
                after the last.

        Raises:
            DtypeError: ``x`` has another shape or type.
        """
        if x.dtype != torch.int64 or x.dim() != 3 or x.shape[2] != 1 + self.characters:
            raise DtypeError(
                f"WordEmbedding: input is {x.dtype} of shape {tuple(x.shape)}, expected words with "
                f"{self.characters} bytes each, (B, T, {1 + self.characters}) int64.\n"
                "  Set dataset.characters, so that the dataset provides them."
            )
        words = x[..., 0]
        if self.training and self.dropout:
            words = words * (torch.rand(words.shape, device=x.device) >= self.dropout)
        spelling = self.bytes(x[..., 1:]).flatten(0, 1).transpose(1, 2)
        found = self.convolution(spelling).amax(-1).unflatten(0, words.shape)
        return torch.cat([self.words(words), found], -1)
