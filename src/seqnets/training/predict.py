"""What a model says, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from seqnets.datasets.loader import Loader
from seqnets.layers import detach
from seqnets.training.evaluating import evaluating
from seqnets.training.objectives import Objective, Row
from seqnets.typing import Batch, Known


def predict(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    known: Known,
    device: torch.device | str = "cpu",
) -> Iterator[Row]:
    """Run a model over batches, and yield what it says as plain values.

    Where a batch continues the one before, so does the model's state. The model is in evaluation
    mode meanwhile, and between the rows as it was.

    Args:
        model: Takes (x, state, lengths), gives (output, state); on ``device``.
        objective: Says what a row is.
        batches: What to run over, in order.
        known: What the dataset said of itself when the model was trained.
        device: Where the model is.

    Raises:
        ConfigError: The objective writes no predictions.
    """
    state: Any = None
    for batch in batches:
        there = batch.map(lambda tensor: tensor.to(device))
        with evaluating(model), torch.no_grad():
            outcome = objective(model, there, state if there.carry else None)
            rows = objective.rows(outcome, there, known)
        state = detach(outcome.state)
        yield from rows


def as_in_file(rows: Iterable[Row], batches: Loader) -> Iterator[Row]:
    """Yield rows with what the batches' file calls their sequences, and its texts to the letter."""
    ids, texts = batches.ids, batches.texts
    for place, row in enumerate(rows):
        name = {} if ids is None else {"id": ids[place]}
        yield {**name, **row, **{column: of_file[place] for column, of_file in texts.items()}}
