"""Attention: a weighted mean of a memory's steps for each query."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from seqnets.checks import check_choice
from seqnets.errors import ConfigError
from seqnets.layers.lengths import masked_softmax, valid_steps, without_padding

SCORES = ("general", "dot")


class Attention(nn.Module, ABC):
    """A mean of a memory's steps, weighted by their scores for a query.

    A subclass defines :meth:`scores`, and :meth:`keys` for what depends on the memory alone and is
    computed once.

    Args:
        query_size: Features of a query, H.
        memory_size: Features of a step of the memory, M.
    """

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.query_size, self.memory_size = query_size, memory_size

    @abstractmethod
    def keys(self, memory: Tensor) -> Tensor:
        """Keys of a memory's steps: (B, T, M) to (B, T, K)."""

    @abstractmethod
    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The score of each step for each query, (B, U, T), from (B, U, H) and (B, T, K)."""

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        lengths: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Contexts, (B, U, M), and the weights of the memory's steps, (B, U, T).

        Weights are 0 past a row's end and sum to 1; all are 0 in a row without a step.

        Args:
            queries: Queries, (B, U, H), independent of each other.
            memory: The memory, (B, T, M).
            lengths: Valid steps of each row of the memory, (B,); all T if omitted.
            keys: The result of :meth:`keys` for a memory whose padding is finite; computed if
                omitted, and padding may then hold anything.
        """
        if keys is None:
            memory = without_padding(memory, lengths)
            keys = self.keys(memory)
        scores = self.scores(queries, keys)
        if lengths is None:
            weights = scores.softmax(-1)
        else:
            weights = masked_softmax(scores, valid_steps(memory, lengths)[:, None])
        return weights @ memory, weights


class BahdanauAttention(Attention):
    r"""Additive attention: a small network scores query and step.

    .. math::
        e_{ut} = v^\top \tanh(W q_u + U m_t + b)

    The paper has no bias.

    Args:
        query_size: Features of a query, H.
        memory_size: Features of a step of the memory, M.
        hidden_size: Units of the network; ``query_size`` if omitted.

    References:
        Bahdanau, Cho and Bengio, 2015, "Neural Machine Translation by Jointly Learning to Align
        and Translate", arXiv:1409.0473, A.1.2.
    """

    def __init__(self, query_size: int, memory_size: int, hidden_size: int | None = None) -> None:
        super().__init__(query_size, memory_size)
        width = hidden_size or query_size
        self.query = nn.Linear(query_size, width, bias=False)
        self.key = nn.Linear(memory_size, width)
        self.score = nn.Linear(width, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """The network's term for each step, (B, T, K)."""
        return self.key(memory)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The network's output for each pair, (B, U, T)."""
        both = self.query(queries)[:, :, None] + keys[:, None]
        return self.score(both.tanh())[..., 0]


class LuongAttention(Attention):
    r"""Multiplicative attention: a product scores query and step.

    .. math::
        e_{ut} &= q_u^\top W m_t &\quad& \text{general} \\
        e_{ut} &= q_u^\top m_t && \text{dot}

    Args:
        query_size: Features of a query, H.
        memory_size: Features of a step of the memory, M.
        score: "general", or "dot", which has no parameters.

    Raises:
        ConfigError: ``score`` is unknown, or "dot" with different widths.

    References:
        Luong, Pham and Manning, 2015, "Effective Approaches to Attention-based Neural Machine
        Translation", arXiv:1508.04025, 3.1 (global attention).
    """

    def __init__(self, query_size: int, memory_size: int, score: str = "general") -> None:
        super().__init__(query_size, memory_size)
        check_choice("LuongAttention", SCORES, score=score)
        if score == "dot" and query_size != memory_size:
            raise ConfigError(
                f"LuongAttention: queries have {query_size} features and the memory "
                f"{memory_size}, expected the same number.\n"
                f"  score='general' allows different widths."
            )
        self.key = (
            nn.Identity() if score == "dot" else nn.Linear(memory_size, query_size, bias=False)
        )

    def keys(self, memory: Tensor) -> Tensor:
        """Each step projected to a query's width, (B, T, H)."""
        return self.key(memory)

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The product of each pair, (B, U, T)."""
        return queries @ keys.transpose(1, 2)
