"""What comes next, after each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.wrapper import Wrapper, apply_initializers
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, Linear
from seqnets.models.encoder import Encoder, check_ahead


class LanguageModel(nn.Module):
    """Predict each next token from all before it: embedding, recurrent stack, softmax output.

    Args:
        cell: Makes the stack's cells: a cell's class or a partial of it.
        vocab_size: Tokens there are, V.
        output: Makes the output layer from its features and the tokens: a ``Linear``, or a
            :class:`~seqnets.models.Head` with a loss of its own.
        tie_weights: Whether the output's weights are the embedding's (Press & Wolf, 2017,
            arXiv:1608.05859); the last layer is then as wide as the embedding.
        init_range: Draw every parameter uniformly between minus and plus this number, but for
            those that options of the cell bring along or have a rule for; each layer starts in its
            own way if omitted.
        options: What :class:`Encoder` takes beside the cell, but not ``input_size``,
            ``bidirectional`` and ``alternating``: tokens come, and the next is not to be seen.

    Raises:
        ConfigError: Weights are tied and widths differ or the output has not one matrix, or the
            stack cannot be built as asked.

    References:
        Mikolov et al., 2010, "Recurrent neural network based language model";
        Zaremba et al., 2014, "Recurrent Neural Network Regularization", arXiv:1409.2329 (where
        the dropout is).
    """

    passes_options_to = Encoder

    def __init__(
        self,
        cell: CellFactory,
        vocab_size: int,
        *,
        output: Callable[[int, int], nn.Module] = Linear,
        tie_weights: bool = False,
        init_range: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        why = "A layer that comes from the future has seen the token to be predicted."
        check_ahead("LanguageModel", options, why)
        if init_range is not None and init_range <= 0:
            raise ConfigError(f"LanguageModel: init_range is {init_range}, expected above 0.")
        self.encoder = Encoder(cell, vocab_size=vocab_size, **options)
        self.output = output(self.encoder.output_size, vocab_size)
        if tie_weights:
            self._tie()
        if init_range is not None:
            self._draw(init_range)

    def forward(
        self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits of the token after each step, (B, T, V), and the state after the last step.

        Args:
            tokens: (B, T) int64, each in 0..V-1.
            state: The state after the tokens before these; that of a beginning if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """
        y, state = self.features(tokens, state, lengths)
        return self.output(y), state

    def features(
        self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """What the output layer is given, (B, T, H), and the state."""
        return self.encoder(tokens, state, lengths)

    def activations(
        self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """What the last layer says and what dropout leaves of it, both (B, T, H), and the state."""
        y, state = self.encoder.run(tokens, state, lengths)
        return y, self.encoder.dropout(y), state

    def _draw(self, init_range: float) -> None:
        """Draw parameters uniformly, except where an option of a cell says how they start."""
        for module in self.modules():
            if not isinstance(module, Wrapper):
                for parameter in module.parameters(recurse=False):
                    nn.init.uniform_(parameter, -init_range, init_range)
        for module in self.modules():
            if isinstance(module, Cell):
                apply_initializers(module)

    def _tie(self) -> None:
        embedding, weight = self.encoder.embedding, getattr(self.output, "weight", None)
        if not isinstance(embedding, nn.Embedding) or not isinstance(weight, nn.Parameter):
            raise ConfigError(
                f"LanguageModel: tie_weights is True, but embedding and output are "
                f"{type(embedding).__name__} and {type(self.output).__name__}, expected one matrix "
                f"in each.\n  Take tie_weights=False, or a Linear or FusedSoftmax as output."
            )
        if embedding.weight.shape != weight.shape:
            raise ConfigError(
                f"LanguageModel: embedding_size is {embedding.embedding_dim} and the last "
                f"layer is {self.encoder.output_size} wide, expected the same.\n"
                f"  tie_weights=True uses one matrix for both."
            )
        nn.init.uniform_(embedding.weight, -0.1, 0.1)
        self.output.weight = embedding.weight
