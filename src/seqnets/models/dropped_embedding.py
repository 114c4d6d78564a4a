"""Embedding with dropout of whole tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.masks import draw
from seqnets.checks import check_probability


class DroppedEmbedding(nn.Embedding):
    """An embedding that in training drops whole tokens, at all their places in a batch.

    Rows of the table are dropped, and the others scaled by 1 / (1 - p).

    Args:
        vocab_size: Number of tokens, V.
        embedding_size: Features of an embedded token.
        p: Probability in [0, 1) of dropping a token.

    References:
        Gal and Ghahramani, 2016, "A Theoretically Grounded Application of Dropout in Recurrent
        Neural Networks", arXiv:1512.05287; Merity et al., 2018, arXiv:1708.02182.
    """

    def __init__(self, vocab_size: int, embedding_size: int, p: float = 0.1) -> None:
        super().__init__(vocab_size, embedding_size)
        check_probability("DroppedEmbedding", p=p)
        self.p = p

    def forward(self, tokens: Tensor) -> Tensor:
        """Features of tokens, (B, T, E), for ids (B, T)."""
        embedded = super().forward(tokens)
        if not self.training or not self.p:
            return embedded
        kept = draw(embedded, (self.num_embeddings, 1), 1 - self.p) / (1 - self.p)
        return embedded * F.embedding(tokens, kept)
