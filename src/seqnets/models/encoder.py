"""The encoder: a recurrent stack over tokens or features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.cells import CellOption, optioned
from seqnets.checks import check_count, check_probability
from seqnets.errors import ConfigError, DataError, DtypeError, counted
from seqnets.layers import CellFactory, DeepRNN, LockedDropout, Truncated
from seqnets.layers.checks import check_reads_no_times

DROPOUTS = ("input", "between", "output")


class Encoder(nn.Module):
    """Embed tokens, or take features as they are, and run a recurrent stack over them.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        input_size: Features of a step, I, if the input is features.
        vocab_size: Number of tokens, V, if the input is tokens. Exactly one of the two is given.
        embedding_size: Features of an embedded token; ``hidden_size`` of the first layer if
            omitted.
        embedding: Builds the embedding from ``vocab_size`` and ``embedding_size``. It is ignored if
            the input is features.
        hidden_size: Units of every layer, H; or a list with one per layer.
        num_layers: Layers, L; by default the length of a list ``hidden_size``, or 1.
        dropout: Probability in [0, 1) of dropping an embedded feature or an output of a layer; or
            one of each kind: {"input": 0.4, "between": 0.2, "output": 0.4}, 0 if left out.
        locked: Whether all steps of a sequence share one dropout mask.
        bptt_steps: How many steps gradients reach back inside a batch; all if omitted.
        cell_options: Options of every cell, with names of the caller's choice; see ``optioned``.
        options: Further arguments of the stack, :class:`~seqnets.DeepRNN`: ``bidirectional``,
            ``alternating``, ``connection``, ``norm``, ``feed_forward``, ``timed``, ``tied``,
            ``backend``, ``memory``. Directions are always concatenated.

    Raises:
        ConfigError: Both or none of ``input_size`` and ``vocab_size`` are given, a size is not a
            positive integer, a cell of tokens takes times (``timed``), or the stack's options are
            invalid.
        TypeError: An option is unknown.
    """

    passes_options_to = DeepRNN

    def __init__(
        self,
        cell: CellFactory,
        *,
        input_size: int | None = None,
        vocab_size: int | None = None,
        embedding_size: int | None = None,
        embedding: Callable[[int, int], nn.Module] = nn.Embedding,
        hidden_size: int | Sequence[int] = 128,
        num_layers: int | None = None,
        dropout: float | Mapping[str, float] = 0.0,
        locked: bool = False,
        bptt_steps: int | None = None,
        cell_options: Mapping[str, CellOption] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if "merge" in options:  # models take the halves of concatenated outputs apart
            raise TypeError(
                "Encoder: got an unexpected keyword argument 'merge', expected none: directions "
                "are concatenated."
            )
        if (input_size is None) == (vocab_size is None):
            raise ConfigError(
                f"Encoder: input_size is {input_size} and vocab_size {vocab_size}, expected one of "
                f"the two.\n  Features have an input_size, tokens a vocab_size."
            )
        rates = dropout_rates(dropout)
        if vocab_size is None and isinstance(dropout, Mapping) and rates["input"]:
            raise ConfigError(
                f"Encoder: dropout has input={rates['input']}, expected 0: it drops features of "
                f"an embedding, and an input of {input_size} features is not embedded."
            )
        first = hidden_size if isinstance(hidden_size, int) else next(iter(hidden_size), 0)
        sizes = {"input_size": input_size, "embedding_size": embedding_size, "hidden_size": first}
        given = {name: size for name, size in sizes.items() if size is not None}
        check_count("Encoder", **given)
        if vocab_size is not None:
            check_count("Encoder", vocab_size=vocab_size)
        width = next(iter(given.values()))
        self.embedding = None if vocab_size is None else embedding(vocab_size, width)
        stack = DeepRNN(
            with_options(cell, cell_options),
            width,
            hidden_size,
            num_layers,
            dropout=rates["between"],
            locked=locked,
            **options,
        )
        if vocab_size is not None:
            check_reads_no_times("Encoder", stack, "an embedded token")
        self.recurrent = stack if bptt_steps is None else Truncated(stack, bptt_steps)
        kind = LockedDropout if locked else nn.Dropout
        self.input_dropout, self.dropout = kind(rates["input"]), kind(rates["output"])
        self.output_size = stack.output_size

    @property
    def top(self) -> nn.Module:
        """The stack's last layer."""
        stack = self.recurrent.layer if isinstance(self.recurrent, Truncated) else self.recurrent
        return stack.layers[-1]

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """The stack's outputs, (B, T, H), and its state.

        Args:
            x: Tokens, (B, T) int64, or features, (B, T, I).
            state: The stack's state before the first step; its initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.

        Raises:
            DtypeError: Tokens are expected, but the input is something else.
            DataError: A token is outside 0..V-1.
        """
        y, state = self.run(x, state, lengths)
        return self.dropout(y), state

    def run(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """As :meth:`forward`, before dropout of the output."""
        if self.embedding is not None:
            if isinstance(self.embedding, nn.Embedding):  # others check their own input
                self._check_tokens(x, self.embedding.num_embeddings)
            x = self.input_dropout(self.embedding(x))
        return self.recurrent(x, state, lengths)

    def _check_tokens(self, tokens: Tensor, vocab_size: int) -> None:
        if tokens.dtype != torch.int64 or tokens.dim() != 2:
            raise DtypeError(
                f"Encoder: input is {tokens.dtype} of shape {tuple(tokens.shape)}, expected "
                f"tokens, (B, T) int64.\n  A model with a vocab_size takes tokens, not features."
            )
        readable = tokens.device.type == "cpu" and not torch.compiler.is_compiling()
        if not readable or not tokens.numel():  # reading values would synchronise with a device
            return
        low, high = (int(v) for v in torch.aminmax(tokens))
        if low < 0 or high >= vocab_size:
            raise DataError(
                f"Encoder: a token is {low if low < 0 else high}, expected 0..{vocab_size - 1}.\n"
                f"  The vocabulary has {counted(vocab_size, 'token')}."
            )


def check_forward(who: str, options: Mapping[str, Any], why: str) -> None:
    """Raise ConfigError if options make a layer run backwards or in both directions."""
    for name in ("bidirectional", "alternating"):
        if options.get(name):
            raise ConfigError(f"{who}: {name} is {options[name]}, expected False.\n  {why}")


def with_options(cell: CellFactory, options: Mapping[str, CellOption] | None) -> CellFactory:
    """A factory of cells with options, if there are any."""
    return partial(optioned, cell=cell, options=options) if options else cell


def dropout_rates(dropout: float | Mapping[str, float]) -> dict[str, float]:
    """The probability of each kind of dropout, from one for all or a partial mapping.

    Raises:
        ConfigError: A kind is unknown, or a probability outside [0, 1).
    """
    given = dropout if isinstance(dropout, Mapping) else dict.fromkeys(DROPOUTS, dropout)
    for name, rate in given.items():
        if name not in DROPOUTS:
            raise ConfigError(
                f"Encoder: dropout has {name!r}, expected names from {', '.join(DROPOUTS)}."
            )
        check_probability("Encoder", **{f"dropout.{name}": rate})
    return {**dict.fromkeys(DROPOUTS, 0.0), **given}
