"""Telling numbers of a sequence."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from seqnets.errors import DataError
from seqnets.training.objectives.base import Objective, Outcome
from seqnets.typing import Batch, Known


class Regression(Objective):
    """Squared error of the numbers of a sequence; compared by it."""

    metric = "mse"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score K values a row."""
        values, state = model(batch.x, state, batch.lengths)
        if values.shape != batch.y.shape:
            raise DataError(
                f"Regression: targets have shape {tuple(batch.y.shape)}, expected "
                f"{tuple(values.shape)}, the shape of what the model says."
            )
        loss = F.mse_loss(values, batch.y)
        count = torch.tensor(len(values), device=values.device)
        return Outcome(loss, count, values.detach(), batch.y, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Mean squared and mean absolute error."""
        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
