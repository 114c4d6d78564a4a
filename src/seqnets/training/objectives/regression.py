"""Regression: prediction of numbers for a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from seqnets.checks import is_number
from seqnets.datasets.scaling import Scaling
from seqnets.errors import DataError
from seqnets.insight.canvas import Picture
from seqnets.insight.scatter import draw_scatter
from seqnets.models.heads import upcast
from seqnets.training.metrics import OwnError
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.rows import entries
from seqnets.training.objectives.scoring import check_shape
from seqnets.typing import Batch, Known

_PICTURES = 8
"""The most numbers that are drawn."""


class Regression(Objective):
    """Squared error of the numbers of a sequence; compared by it.

    If the dataset standardises them, errors are in those units: always predicting the training
    part's mean gives a mean squared error of 1. ``mae_NAME`` is the mean absolute error of one
    number in its own units, in which predictions are also written and drawn. In the loss alone,
    the error of a sequence is multiplied by its weight if the batch has weights.
    """

    metric = "mse"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score K values per row."""
        values, state = model(batch.x, state, batch.lengths)
        check_shape(self, values, batch.y)
        if batch.weights is None:
            loss = F.mse_loss(upcast(values), upcast(batch.y))
        else:
            each = F.mse_loss(upcast(values), upcast(batch.y), reduction="none")
            loss = (each * batch.weights[:, None]).mean()
        count = torch.tensor(len(values), device=values.device)
        return Outcome(loss, count, values.detach(), batch.y, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Mean squared and mean absolute error; the latter also in the units of each number."""
        metrics: dict[str, Metric] = {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}
        scaling = self.scaling(known)
        if scaling is not None:
            for k, (name, unit) in enumerate(
                zip(known["targets"], scaling.deviation.tolist(), strict=True)
            ):
                metrics[f"mae_{name}"] = OwnError(k, unit)
        return metrics

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """The numbers, (B, K)."""
        values, state = model(x, state, lengths)
        return {"values": values}, state

    def scaling(self, known: Known) -> Scaling | None:
        """The standardisation of the numbers, if the dataset has one."""
        scale = (known.get("scaling") or {}).get("y")
        return None if scale is None else Scaling.read(scale)

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per sequence: the predicted and the true number, in the data's own units.

        Several numbers are a mapping by column name, or a list if columns have no names.
        """
        scaling, names = self.scaling(known), known.get("targets")
        predicted, right = (_own_units(v, scaling) for v in (outcome.predictions, outcome.targets))
        return [
            {
                "prediction": _plain(numbers, scaling, names),
                "target": None if targets.isnan().any() else _plain(targets, scaling, names),
            }
            for numbers, targets in zip(predicted, right, strict=True)
        ]

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Predicted and true numbers, (N, K) each, standardised as the metrics take them."""
        predicted, right = (_numbers(rows, key, known) for key in ("prediction", "target"))
        scaling = self.scaling(known)
        if scaling is None:
            return predicted.float(), right.float()
        return scaling(predicted), scaling(right)

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """Predicted against true values of the batch, one picture per number."""
        scaling = self.scaling(known)
        predicted, right = (
            _own_units(v, scaling).numpy() for v in (outcome.predictions, outcome.targets)
        )
        names = known.get("targets") or [f"number {k + 1}" for k in range(predicted.shape[1])]
        return {
            f"predicted and true, {name}": draw_scatter(predicted[:, k], right[:, k])
            for k, name in enumerate(names[:_PICTURES])
        }


def _own_units(values: Tensor, scaling: Scaling | None) -> Tensor:
    """Numbers (N, K) in the units of the dataset's files, float64."""
    values = values.cpu().double()  # a GPU may have no float64
    return values if scaling is None else scaling.undo(values)


def _plain(numbers: Tensor, scaling: Scaling | None, names: Sequence[str] | None) -> Any:
    """Numbers rounded to their precision: one number, a mapping by name, or a list."""
    if scaling is None:
        found = [float(f"{number:.9g}") for number in numbers.tolist()]
    else:
        found = [*map(round, numbers.tolist(), scaling.places)]
    if len(found) == 1:
        return found[0]
    return dict(zip(names, found, strict=True)) if names else found


def _numbers(rows: Sequence[Row], key: str, known: Known) -> Tensor:
    """The inverse of :func:`_plain`, (N, K) float64."""
    count, names = known["sizes"]["output_size"], known.get("targets")
    found = []
    for place, entry in enumerate(entries(rows, key), start=1):
        if isinstance(entry, dict):
            numbers = [entry.get(name) for name in names or ()]
        else:
            numbers = entry if isinstance(entry, list) else [entry]
        if len(numbers) != count or not all(map(is_number, numbers)):
            expected = "a number" if count == 1 else f"{count} numbers"
            named = f": {', '.join(names)}" if names else ""
            raise DataError(f"Row {place}: got {key} {entry!r}, expected {expected}{named}.")
        found.append(numbers)
    return torch.tensor(found, dtype=torch.float64)
