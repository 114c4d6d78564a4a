"""A model's predictions, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from seqnets.datasets.loader import Loader
from seqnets.errors import DtypeError
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
    """Run a model over batches, and yield its predictions as plain values.

    If a batch continues the one before, the model's state is carried over. The model is in
    evaluation mode while it runs, and in its previous mode while rows are yielded.

    Args:
        model: Takes (x, state, lengths), gives (output, state); on ``device``.
        objective: Turns outputs into rows.
        batches: The batches, in order.
        known: The description of the dataset that the model was trained on.
        device: The model's device.

    Raises:
        ConfigError: The objective writes no predictions.
        DtypeError: Tensors, or lists of them, are given in place of batches.
    """
    state: Any = None
    for batch in batches:
        if not isinstance(batch, Batch):
            raise DtypeError(
                f"predict: batches has a {type(batch).__name__}, expected a Batch.\n"
                "  A loader has them: data.loader('test').in_order(). The model takes tensors."
            )
        there = batch.map(lambda tensor: tensor.to(device))
        with evaluating(model), torch.no_grad():
            outcome = objective(model, there, state if there.carry else None)
            rows = objective.rows(outcome, there, known)
        state = detach(outcome.state)
        yield from rows


def as_in_file(rows: Iterable[Row], batches: Loader) -> Iterator[Row]:
    """Yield rows with the names of sequences and the original texts from the batches' file."""
    ids, texts = batches.ids, batches.texts
    for place, row in enumerate(rows):
        name = {} if ids is None else {"id": ids[place]}
        yield {**name, **row, **{column: of_file[place] for column, of_file in texts.items()}}
