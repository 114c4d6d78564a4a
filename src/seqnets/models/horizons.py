"""Forecasting strategies: how a recurrence reaches the horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, map_state
from seqnets.models.classifier import SequenceRegressor
from seqnets.models.encoder import Encoder, check_forward

_WHY_FORWARD = "It continues from the final state; model/strategy=direct does not."


class Task(NamedTuple):
    """The task of a strategy.

    Attributes:
        input_size: Features of a step.
        output_size: Features of a prediction.
        steps: Steps to predict.
        feed_back: Maps a prediction, (B, output_size), and what is known of its step,
            (B, ahead_size), if anything is, to an input step, (B, input_size).
        complete: Whether all features of a step are predicted or known ahead, so that it can be
            fed back.
        ahead_size: Features of a step that are known ahead.
    """

    input_size: int
    output_size: int
    steps: int
    feed_back: Callable[..., Tensor]
    complete: bool
    ahead_size: int = 0


class Strategy(Protocol):
    """How a model is made for a task: one of the classes below, or a partial of it."""

    def __call__(self, cell: CellFactory, task: Task, **options: Any) -> nn.Module:
        """Build a module that maps steps, (B, S, input_size), and an optional state to a forecast.

        It returns predictions, (B, steps, output_size), and a state. If ``task.ahead_size`` is not
        0, it also takes what is known of these steps and of those to predict,
        (B, S + steps, ahead_size).

        Args:
            cell: A cell's class or a partial of it, for the stack's cells.
            task: The task.
            options: As for :class:`Encoder`.
        """


class Direct(nn.Module):
    """Predict all steps at once from the final output, each with its own weights.

    Each prediction also depends, linearly, on what is known ahead of all steps to predict.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        task: Sizes of inputs and predictions, and how many steps to predict.
        **options: The other arguments of :class:`Encoder`.

    References:
        Wen et al., 2017, "A Multi-Horizon Quantile Recurrent Forecaster", arXiv:1711.11053, whose
        output layers have hidden units, for what is known ahead.
    """

    def __init__(self, cell: CellFactory, task: Task, **options: Any) -> None:
        super().__init__()
        self.steps = task.steps
        outputs = task.steps * task.output_size
        self.whole = SequenceRegressor(cell, outputs, input_size=task.input_size, **options)
        self.ahead: nn.Linear | None = None
        if task.ahead_size:
            self.ahead = nn.Linear(task.steps * task.ahead_size, outputs, bias=False)

    def forward(
        self, x: Tensor, state: Any = None, known: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Predictions, (B, steps, output_size), and the state."""
        y, state = self.whole(x, state)
        if self.ahead is not None and known is not None:
            y = y + self.ahead(known[:, -self.steps :].flatten(1))
        return y.unflatten(-1, (self.steps, -1)), state


class Recursive(nn.Module):
    """Predict the next step, feed it back as input, and so on.

    Predictions are fed back in training, too, so that the model learns from errors that accumulate.
    Beside each input stands what is known ahead of the step after it, which is predicted from it.
    The arguments are those of :class:`Direct`.

    Raises:
        ConfigError: Not all features of a step are predicted or known ahead, or a layer runs
            backwards or in both directions.
    """

    def __init__(self, cell: CellFactory, task: Task, **options: Any) -> None:
        super().__init__()
        check_forward(type(self).__name__, options, _WHY_FORWARD)
        self.steps, self.feed_back = task.steps, task.feed_back
        if not task.complete:
            raise ConfigError(
                "Recursive: only some columns are predicted, expected all that are not known "
                "ahead: they are fed back.\n"
                "  Predict all (dataset.targets=[]), drop the others (dataset.leave_out), or use "
                "another strategy (model/strategy=direct)."
            )
        self.encoder = Encoder(cell, input_size=task.input_size + task.ahead_size, **options)
        self.output = nn.Linear(self.encoder.output_size, task.output_size)

    def forward(
        self, x: Tensor, state: Any = None, known: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Predictions, (B, steps, output_size), and the state before them."""
        if known is not None:
            x = torch.cat([x, known[:, 1 : x.shape[1] + 1]], -1)
        y, state = self.encoder(x, state)
        predicted, after = [self.output(y[:, -1])], state
        while len(predicted) < self.steps:
            y, after = self.encoder(self._fed(predicted, known)[:, None], after)
            predicted.append(self.output(y[:, -1]))
        return torch.stack(predicted, 1), state

    def _fed(self, predicted: list[Tensor], known: Tensor | None) -> Tensor:
        """The input after some predictions."""
        if known is None:
            return self.feed_back(predicted[-1])
        its, after = known[:, len(predicted) - self.steps - 1 :][:, :2].unbind(1)
        return torch.cat([self.feed_back(predicted[-1], its), after], -1)


class EncoderDecoder(nn.Module):
    """A second stack continues from the state of the first, over a learned vector per step.

    It reads the position of each step rather than the prediction before it, so that errors are not
    fed back and all steps run as one sequence, and what is known ahead of the step. The arguments
    are those of :class:`Direct`.

    Raises:
        ConfigError: A layer runs backwards, or in both directions.

    References:
        Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder",
        arXiv:1406.1078, whose decoder reads the prediction before it.
    """

    def __init__(self, cell: CellFactory, task: Task, **options: Any) -> None:
        super().__init__()
        check_forward(type(self).__name__, options, _WHY_FORWARD)
        self.encoder = Encoder(cell, input_size=task.input_size, **options)
        self.vectors: nn.Embedding | None = None
        if task.ahead_size:
            self.vectors = nn.Embedding(task.steps, self.encoder.output_size)
            size = self.encoder.output_size + task.ahead_size
            self.decoder = Encoder(cell, input_size=size, **options)
        else:
            self.decoder = Encoder(cell, vocab_size=task.steps, **options)
        self.output = nn.Linear(self.decoder.output_size, task.output_size)
        self.register_buffer("places", torch.arange(task.steps))
        self.places: Tensor

    def forward(
        self, x: Tensor, state: Any = None, known: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Predictions, (B, steps, output_size), and the encoder's state."""
        _, state = self.encoder(x, state)
        y, _ = self.decoder(self._read(x.shape[0], known), state)
        return self.output(y), state

    def _read(self, rows: int, known: Tensor | None) -> Tensor:
        """What the decoder reads: places, (B, steps), or their vectors with what is known."""
        if self.vectors is None or known is None:
            return self.places.expand(rows, -1)
        vectors = self.vectors.weight.expand(rows, -1, -1)
        return torch.cat([vectors, known[:, -len(self.places) :]], -1)


class Parallel(EncoderDecoder):
    """For every step the decoder takes one step from the encoder's state, all in parallel.

    The arguments are those of :class:`Direct`.

    References:
        Lin et al., 2023, "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
        Forecasting", arXiv:2308.11200, where encoder and decoder share one cell.
    """

    def forward(
        self, x: Tensor, state: Any = None, known: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Predictions, (B, steps, output_size), and the encoder's state."""
        _, state = self.encoder(x, state)
        steps = len(self.places)
        each = map_state(lambda part: part.repeat_interleave(steps, 0), state)
        y, _ = self.decoder(self._read(x.shape[0], known).flatten(0, 1)[:, None], each)
        return self.output(y).view(x.shape[0], steps, -1), state
