"""Ways from what was seen to what comes: how a recurrence reaches a horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from seqnets.errors import ConfigError
from seqnets.layers import CellFactory, map_state
from seqnets.models.classifier import SequenceRegressor
from seqnets.models.encoder import Encoder, check_ahead

_WHY_AHEAD = "What comes goes on from a state at the end; model/strategy=direct needs none."


class Task(NamedTuple):
    """What a strategy is to do.

    Attributes:
        input_size: Features of a step.
        output_size: Features that say what a step to come may be.
        steps: Steps to come.
        fed_back: From what is said of a step, (B, output_size), to that step, (B, input_size).
        complete: Whether all that a step has is told, and it can be fed back.
    """

    input_size: int
    output_size: int
    steps: int
    fed_back: Callable[[Tensor], Tensor]
    complete: bool


class Strategy(Protocol):
    """A class below, or a partial of it."""

    def __call__(self, cell: CellFactory, task: Task, **options: Any) -> nn.Module:
        """Make what takes steps, (B, S, input_size), and an optional state.

        It gives what is said of the steps to come, (B, steps, output_size), and a state.

        Args:
            cell: Makes the stack's cells.
            task: What is to be done.
            options: As for :class:`Encoder`.
        """


class Direct(nn.Module):
    """Say all steps to come at once, each by weights of its own, of what is known at the end."""

    def __init__(self, cell: CellFactory, task: Task, **options: Any) -> None:
        super().__init__()
        self.steps = task.steps
        outputs = task.steps * task.output_size
        self.whole = SequenceRegressor(cell, outputs, input_size=task.input_size, **options)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What is said of the steps to come, (B, steps, output_size), and the state."""
        y, state = self.whole(x, state)
        return y.unflatten(-1, (self.steps, -1)), state


class Recursive(nn.Module):
    """Say the next step, take it as if it had come, and so on.

    In training as well: errors that grow with the steps are learned from.

    Raises:
        ConfigError: Not all features of a step are told, or a layer runs backwards or both ways.
    """

    def __init__(self, cell: CellFactory, task: Task, **options: Any) -> None:
        super().__init__()
        check_ahead(type(self).__name__, options, _WHY_AHEAD)
        self.steps, self.fed_back = task.steps, task.fed_back
        if not task.complete:
            raise ConfigError(
                "Recursive: some columns of a step are told, expected all, which are fed back.\n"
                "  Tell all (dataset.targets=[]), leave others out (dataset.leave_out), or take "
                "another strategy (model/strategy=direct)."
            )
        self.encoder = Encoder(cell, input_size=task.input_size, **options)
        self.output = nn.Linear(self.encoder.output_size, task.output_size)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What is said of the steps to come, (B, steps, output_size), and the state before them."""
        y, state = self.encoder(x, state)
        said, after = [self.output(y[:, -1])], state
        while len(said) < self.steps:
            y, after = self.encoder(self.fed_back(said[-1])[:, None], after)
            said.append(self.output(y[:, -1]))
        return torch.stack(said, 1), state


class EncoderDecoder(nn.Module):
    """A second stack goes on from the state of the first, over a learned vector for each step.

    It is told which step it is at, not what was said of the one before; so nothing that is wrong is
    fed back, and all steps run as one sequence.

    Raises:
        ConfigError: A layer runs backwards, or in both directions.

    References:
        Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder",
        arXiv:1406.1078, whose decoder is told what was said before.
    """

    def __init__(self, cell: CellFactory, task: Task, **options: Any) -> None:
        super().__init__()
        check_ahead(type(self).__name__, options, _WHY_AHEAD)
        self.encoder = Encoder(cell, input_size=task.input_size, **options)
        self.decoder = Encoder(cell, vocab_size=task.steps, **options)
        self.output = nn.Linear(self.decoder.output_size, task.output_size)
        self.register_buffer("places", torch.arange(task.steps), persistent=False)
        self.places: Tensor

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What is said of the steps to come, (B, steps, output_size), and the encoder's state."""
        _, state = self.encoder(x, state)
        y, _ = self.decoder(self.places.expand(x.shape[0], -1), state)
        return self.output(y), state


class Parallel(EncoderDecoder):
    """The decoder takes one step from the encoder's state for each step to come, all at once.

    References:
        Lin et al., 2023, "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
        Forecasting", arXiv:2308.11200, where encoder and decoder share one cell.
    """

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What is said of the steps to come, (B, steps, output_size), and the encoder's state."""
        _, state = self.encoder(x, state)
        steps = len(self.places)
        each = map_state(lambda part: part.repeat_interleave(steps, 0), state)
        y, _ = self.decoder(self.places.repeat(x.shape[0])[:, None], each)
        return self.output(y).view(x.shape[0], steps, -1), state
