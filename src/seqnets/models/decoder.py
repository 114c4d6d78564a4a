"""The decoder: writes a sequence token by token, with attention over another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqnets.checks import check_choice
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN, map_state
from seqnets.layers.checks import check_reads_no_times
from seqnets.layers.lengths import without_padding
from seqnets.models.attention import Attention
from seqnets.models.encoder import dropout_rates

FEEDS = ("nothing", "output", "context")

AttentionFactory = Callable[..., Attention]
"""Builds an attention of given sizes: a class, or a partial of it."""


class Memory(NamedTuple):
    """The encoded source.

    Attributes:
        values: Outputs of the encoder, (B, T, M).
        lengths: Valid steps of each row, (B,); all T if None.
        keys: Keys of the attention, (B, T, K); None without attention.
    """

    values: Tensor
    lengths: Tensor | None
    keys: Tensor | None

    def select(self, rows: Tensor) -> Memory:
        """The memory of the rows with these indices, (N,), possibly repeated."""
        others = (None if part is None else part[rows] for part in (self.lengths, self.keys))
        return Memory(self.values[rows], *others)


class Decoder(nn.Module):
    r"""A recurrent stack over embedded tokens, with attention over a memory.

    The stack's output is the query of each step, and forms the step's features with the context:

    .. math::
        c_u &= \mathrm{attention}(s_u, m) \\
        \tilde s_u &= \tanh(W [c_u; s_u] + b)

    ``feed`` is concatenated to the next token's embedding, and decides how steps are run:

    - "nothing": the stack does not depend on the attention, so that all steps of a known sequence
      are one call of the stack and one of the attention.
    - "output": the features of the step before (Luong's input feeding); step by step.
    - "context": the query is the output of the step before, and its context this step's
      :math:`c_u` (Bahdanau's order); step by step.

    Args:
        make_stack: Builds the unidirectional stack for a number of input features.
        embedding: Embedding of the tokens, (V, E).
        memory_size: Features of a step of the memory, M.
        output_size: Features of a step, W.
        attention: Builds the attention; None for a decoder without one.
        feed: "nothing", "output" or "context".
        dropout: Probability in [0, 1) of dropping an embedded feature or a feature of a step; or
            one of each, {"input": 0.4, "output": 0.2}.

    Raises:
        ConfigError: ``feed`` is unknown, or needs an attention and there is none, or a cell takes
            times (``timed``).

    References:
        Luong et al., 2015, arXiv:1508.04025, 3 and 3.3 (no bias); Bahdanau et al., 2015,
        arXiv:1409.0473, A.2 (features from a maxout that also sees the last token).
    """

    def __init__(
        self,
        make_stack: Callable[[int], DeepRNN],
        embedding: nn.Embedding,
        memory_size: int,
        output_size: int,
        attention: AttentionFactory | None = None,
        *,
        feed: str = "nothing",
        dropout: float | Mapping[str, float] = 0.0,
    ) -> None:
        super().__init__()
        check_choice("Decoder", FEEDS, feed=feed)
        if feed == "context" and attention is None:
            raise ConfigError(
                "Decoder: feed is 'context' and attention None, expected an attention.\n"
                "  There is no context without attention; feed='output' works without."
            )
        fed = {"nothing": 0, "output": output_size, "context": memory_size}[feed]
        self.feed, self.output_size, self.embedding = feed, output_size, embedding
        rates = dropout_rates(dropout)
        self.input_dropout, self.dropout = nn.Dropout(rates["input"]), nn.Dropout(rates["output"])
        self.recurrent = make_stack(embedding.embedding_dim + fed)
        check_reads_no_times("Decoder", self.recurrent, "an embedded token")
        size = self.recurrent.output_size
        self.attention = None if attention is None else attention(size, memory_size)
        combined = size if attention is None else memory_size + size
        plain = attention is None and size == output_size
        self.combine = None if plain else nn.Linear(combined, output_size)

    def remember(self, values: Tensor, lengths: Tensor | None) -> Memory:
        """Make a memory from an encoder's outputs, (B, T, M); padding may hold anything."""
        values = without_padding(values, lengths)
        keys = None if self.attention is None else self.attention.keys(values)
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=values.device)
        return Memory(values, lengths, keys)

    def start(self, state: Any, rows: int) -> Any:
        """The decoder's state before the first step, from the stack's state.

        It is a pair of the stack's state and what the next step is fed: for "output" features,
        initially zero; for "context" the query, initially the top layer's state, through the
        stack's last norm if it has norms.
        """
        if self.feed == "nothing":
            return state, None
        if self.feed == "output":
            return state, self.embedding.weight.new_zeros(rows, self.output_size)
        top = state[-1][0]
        return state, self.recurrent.norms[-1](top) if len(self.recurrent.norms) else top

    @property
    def state_names(self) -> list[str]:
        """A name for each tensor of the state: the cells' with their layer, and what is fed."""
        layers: Any = enumerate(self.recurrent.layers)
        parts = [f"{part}_{depth}" for depth, layer in layers for part in layer.cell.states]
        return parts if self.feed == "nothing" else [*parts, "fed"]

    def forward(self, tokens: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Tensor | None]:
        """Features of all steps, (B, U, W), and attention weights, (B, U, T), for known tokens.

        Args:
            tokens: The token before each step, (B, U) int64.
            memory: The result of :meth:`remember`.
            state: The result of :meth:`start`.
        """
        embedded = self.input_dropout(self.embedding(tokens))
        if self.feed == "nothing":
            y, _ = self.recurrent(embedded, state[0])
            context, weights = self._look(y, memory)
            return self._features(y, context), weights
        features, looked = [], []
        for x in embedded.unbind(1):
            y, weights, state = self._step(x, memory, state)
            features.append(y)
            looked.append(weights)
        return over_steps(features, looked)

    def step(self, tokens: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Tensor | None, Any]:
        """Take one step after tokens (B,): features (B, W), weights (B, T), and the new state."""
        return self._step(self.input_dropout(self.embedding(tokens)), memory, state)

    def _step(self, x: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Tensor | None, Any]:
        carried, fed = state
        context = weights = None
        if self.feed == "context":
            context, weights = self._look(fed[:, None], memory)
            x = torch.cat([x, context[:, 0]], -1)
        elif self.feed == "output":
            x = torch.cat([x, fed], -1)
        y, carried = self.recurrent.step(x, carried)
        if self.feed != "context":
            context, weights = self._look(y[:, None], memory)
        features = self._features(y[:, None], context)[:, 0]
        fed = {"nothing": None, "output": features, "context": y}[self.feed]
        return features, None if weights is None else weights[:, 0], (carried, fed)

    def _look(self, queries: Tensor, memory: Memory) -> tuple[Any, Any]:
        if self.attention is None:
            return None, None
        return self.attention(queries, *memory)

    def _features(self, y: Tensor, context: Tensor | None) -> Tensor:
        if self.combine is not None:
            y = self.combine(y if context is None else torch.cat([context, y], -1)).tanh()
        return self.dropout(y)


def select_state(state: Any, rows: Tensor) -> Any:
    """A decoder's state of the rows with these indices, (N,), possibly repeated."""
    return map_state(lambda part: part[rows], state)


def over_steps(features: list[Tensor], looked: list[Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """Stack each step's features (B, W) and weights (B, T) to (B, U, W) and (B, U, T)."""
    found = [weights for weights in looked if weights is not None]
    return torch.stack(features, 1), torch.stack(found, 1) if found else None
