"""Language models: prediction of the next token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.redrawing import apply_initializers
from seqnets.cells.wrapper import Wrapper
from seqnets.checks import check_number
from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, Linear
from seqnets.models.encoder import Encoder, check_forward


class LanguageModel(nn.Module):
    """Predict each next token from all before it: embedding, recurrent stack, softmax output.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        vocab_size: Number of tokens, V.
        output: Builds the output layer from its features and the number of tokens: a ``Linear``, or
            a :class:`~seqnets.models.Head` with a loss of its own.
        tie_weights: Whether output and embedding share their weights (Press & Wolf, 2017,
            arXiv:1608.05859); the last layer must then be as wide as the embedding.
        init_range: Draw all parameters uniformly from [-init_range, init_range], except those of
            norms, and those that options of the cell add or initialise; if omitted, each layer is
            initialised in its own way.
        options: Further arguments of :class:`Encoder`, except ``input_size``, ``bidirectional`` and
            ``alternating``.

    Raises:
        ConfigError: Weights are tied but widths differ or the output has no single matrix, or the
            stack's options are invalid.

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
        why = "A layer that runs backwards has already seen the token to predict."
        check_forward("LanguageModel", options, why)
        if init_range is not None:
            check_number("LanguageModel", above=0, init_range=init_range)
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
            state: The state before the first token; the initial state if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
        """
        y, state = self.features(tokens, state, lengths)
        return self.output(y), state

    def features(
        self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """The input of the output layer, (B, T, H), and the state."""
        return self.encoder(tokens, state, lengths)

    def activations(
        self, tokens: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """The last layer's outputs before and after dropout, (B, T, H) each, and the state."""
        y, state = self.encoder.run(tokens, state, lengths)
        return y, self.encoder.dropout(y), state

    def _draw(self, init_range: float) -> None:
        """Draw parameters uniformly, but those of norms and those of, or set by, cells' options."""
        for module in self.modules():
            if not isinstance(module, (Wrapper, nn.LayerNorm, nn.RMSNorm)):
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
