"""Sequence-to-sequence models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import CellOption
from seqnets.checks import check_count, check_probability
from seqnets.layers import CellFactory, DeepRNN, Linear
from seqnets.models.decoder import AttentionFactory, Decoder, Memory, over_steps
from seqnets.models.encoder import Encoder, dropout_rates, with_options
from seqnets.typing import END, IGNORE

_OF_BOTH = ("num_layers", "connection", "norm", "feed_forward", "tied", "backend", "memory")
"""Further arguments of :class:`DeepRNN` that encoder and decoder share."""


class SequenceToSequence(nn.Module):
    """Read a sequence, then write another: encoder, decoder with attention, softmax output.

    The decoder is a unidirectional stack like the encoder's, and starts from the encoder's final
    states: with a bidirectional encoder from the backward ones, which have just read the beginning.
    The token ``END`` ends a target, and precedes its first token.

    Args:
        cell: A cell's class or a partial of it, for the cells of both stacks.
        target_vocab_size: Number of target tokens, V, including ``END``.
        attention: Builds the attention from (query_size, memory_size): a class or a partial of it;
            None to use the encoder's final states alone (Sutskever et al., 2014).
        feed: Further input of a decoder's step beside the last token: "nothing", "output" or
            "context"; see :class:`Decoder`. With "nothing" a known target is one call of the stack.
        tie_weights: Whether output and target embedding share their weights (Press & Wolf, 2017,
            arXiv:1608.05859).
        sampling: Scheduled sampling: probability in [0, 1) that a training step reads a token
            sampled from the model instead of the target's; steps are then run one by one.
        sampling_steps: Training batches over which that probability rises linearly from 0; it is
            constant if 0.
        hidden_size: Units of every layer of both stacks, H; or a list with one per layer.
        embedding_size: Features of an embedded token, of source and target; ``hidden_size`` of the
            first layer if omitted.
        dropout: Of both stacks; as for :class:`Encoder`.
        cell_options: Options of every cell; as for :class:`Encoder`.
        options: Further arguments of :class:`Encoder`: ``vocab_size`` (of the source) or
            ``input_size``; ``num_layers``, ``connection``, ``norm``, ``feed_forward``, ``tied``,
            ``backend`` and ``memory`` of both stacks; ``bidirectional``, ``alternating``,
            ``timed``, ``locked``, ``embedding`` and ``bptt_steps`` of the encoder.

    Raises:
        ConfigError: ``sampling``, ``sampling_steps`` or ``target_vocab_size`` is out of range, the
            cell takes times (``timed``), or the stacks' options are invalid.

    References:
        Sutskever et al., 2014, "Sequence to Sequence Learning with Neural Networks",
        arXiv:1409.3215; Bahdanau et al., 2015, arXiv:1409.0473; Luong et al., 2015,
        arXiv:1508.04025; Bengio et al., 2015, "Scheduled Sampling for Sequence Prediction with
        Recurrent Neural Networks", arXiv:1506.03099 (``sampling``, its linear schedule).
    """

    seen: Tensor

    passes_options_to = Encoder

    def __init__(
        self,
        cell: CellFactory,
        target_vocab_size: int,
        *,
        attention: AttentionFactory | None = None,
        feed: str = "nothing",
        tie_weights: bool = False,
        sampling: float = 0.0,
        sampling_steps: int = 0,
        hidden_size: int | Sequence[int] = 128,
        embedding_size: int | None = None,
        dropout: float | Mapping[str, float] = 0.0,
        cell_options: Mapping[str, CellOption] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_probability("SequenceToSequence", sampling=sampling)
        check_count("SequenceToSequence", least=0, sampling_steps=sampling_steps)
        check_count("SequenceToSequence", target_vocab_size=target_vocab_size)
        self.target_vocab_size = target_vocab_size
        self.encoder = Encoder(
            cell,
            hidden_size=hidden_size,
            embedding_size=embedding_size,
            dropout=dropout,
            cell_options=cell_options,
            **options,
        )
        self.sampling, self.sampling_steps = sampling, sampling_steps
        self.register_buffer("seen", torch.tensor(0))  # batches of training so far
        sizes = [hidden_size] if isinstance(hidden_size, int) else hidden_size
        embedding = nn.Embedding(target_vocab_size, embedding_size or sizes[0])
        rates = dropout_rates(dropout)
        make_stack = partial(
            DeepRNN,
            with_options(cell, cell_options),
            hidden_size=hidden_size,
            dropout=rates["between"],
            **{name: options[name] for name in _OF_BOTH if name in options},
        )
        self.decoder = Decoder(
            make_stack,
            embedding,
            self.encoder.output_size,
            embedding.embedding_dim if tie_weights else sizes[-1],
            attention,
            feed=feed,
            dropout=rates,
        )
        self.output = Linear(self.decoder.output_size, target_vocab_size)
        if tie_weights:
            nn.init.uniform_(embedding.weight, -0.1, 0.1)
            self.output.weight = embedding.weight

    def forward(self, x: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of each target token, (B, U, V), given those before it.

        Args:
            x: The source: tokens, (B, T) int64, or features, (B, T, I).
            y: The target, (B, U) int64; ``IGNORE`` past its end.
            lengths: Valid steps of each row of the source, (B,); all T if omitted.
        """
        return self.output(self.features(x, y, lengths)[0])

    def features(
        self, x: Tensor, y: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The input of the output layer, (B, U, W), and attention weights, (B, U, T)."""
        before = torch.cat([torch.full_like(y[:, :1], END), y[:, :-1]], 1)
        before = before.masked_fill(before == IGNORE, END)
        memory, state = self.read(x, lengths)
        if self.training and self.sampling:
            return self._sampled(before, memory, state)
        return self.decoder(before, memory, state)

    def read(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Memory, Any]:
        """Encode the source: the decoder's memory, and its state before the first step."""
        values, states = self.encoder(x, None, lengths)
        state = tuple(_forward_state(each) for each in states)
        return self.decoder.remember(values, lengths), self.decoder.start(state, x.shape[0])

    def write(
        self, tokens: Tensor, memory: Memory, state: Any
    ) -> tuple[Tensor, Tensor | None, Any]:
        """Take one decoding step after tokens (B,).

        Returns:
            Logits of the next token, (B, V), attention weights, (B, T), or None without attention,
            and the new state.
        """
        features, weights, state = self.decoder.step(tokens, memory, state)
        return self.output(features), weights, state

    @property
    def sampled_share(self) -> float:
        """The sampling probability of the next training batch."""
        if not self.sampling_steps:
            return self.sampling
        return self.sampling * min(1.0, int(self.seen) / self.sampling_steps)

    def _sampled(self, before: Tensor, memory: Memory, state: Any) -> tuple[Tensor, Tensor | None]:
        share = self.sampled_share
        self.seen += 1
        own = torch.rand(before.shape, device=before.device) < share
        features: list[Tensor] = []
        looked: list[Tensor | None] = []
        tokens = before[:, 0]
        for step in range(before.shape[1]):
            if step:
                with torch.no_grad():
                    sampled = self.output(features[-1]).softmax(-1).multinomial(1)[:, 0]
                tokens = torch.where(own[:, step], sampled, before[:, step])
            y, weights, state = self.decoder.step(tokens, memory, state)
            features.append(y)
            looked.append(weights)
        return over_steps(features, looked)


def _forward_state(state: Any) -> Any:
    """A layer's state for a unidirectional layer: of a pair, the backward one."""
    return state if isinstance(state[0], Tensor) else state[1]
