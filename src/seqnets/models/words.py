"""Words as vectors: by the word itself and by how it is written."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets.checks import check_probability
from seqnets.errors import ConfigError, DtypeError

BYTES = 257
"""What a character's place may hold: 0 for nothing, else a byte of the word in UTF-8, plus one."""


class WordEmbedding(nn.Module):
    """Embed words that come with their spelling: a vector a word, and filters over its bytes.

    So a word that the vocabulary lacks is known by its letters, capitals, digits and endings: each
    filter sees three bytes at a time, and the greatest of what it finds is kept.

    Args:
        vocab_size: Words there are, V.
        embedding_size: Features of a word, both kinds together.
        characters: Bytes of a word that come with it, from its beginning on.
        filters: Features that come from the spelling; fewer than ``embedding_size``.
        byte_size: Features of a byte.
        dropout: Probability in [0, 1) of taking an unknown word for a word while training, so that
            the spelling is learned too.

    Raises:
        ConfigError: ``filters`` leave nothing for the word itself.

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
                "expected above 0 and fewer than it."
            )
        check_probability("WordEmbedding", dropout=dropout)
        self.characters, self.dropout = characters, dropout
        self.words = nn.Embedding(vocab_size, embedding_size - filters)
        self.bytes = nn.Embedding(BYTES, byte_size, padding_idx=0)
        self.convolution = nn.Conv1d(byte_size, filters, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors of words, (B, T, E).

        Args:
            x: (B, T, 1 + characters) int64: a word's number, 0 for an unknown one, then its bytes
                plus one, 0 behind the last.

        Raises:
            DtypeError: ``x`` has another shape or type.
        """
        if x.dtype != torch.int64 or x.dim() != 3 or x.shape[2] != 1 + self.characters:
            raise DtypeError(
                f"WordEmbedding: input is {x.dtype} of shape {tuple(x.shape)}, expected words with "
                f"{self.characters} bytes each, (B, T, {1 + self.characters}) int64.\n"
                "  The dataset must give them: dataset.characters."
            )
        words = x[..., 0]
        if self.training and self.dropout:
            words = words * (torch.rand(words.shape, device=x.device) >= self.dropout)
        spelling = self.bytes(x[..., 1:]).flatten(0, 1).transpose(1, 2)
        found = self.convolution(spelling).amax(-1).unflatten(0, words.shape)
        return torch.cat([self.words(words), found], -1)
