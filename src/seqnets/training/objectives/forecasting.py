"""Forecasting of time series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.checks import is_number, name_of
from seqnets.datasets import DataModule
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError, DataError, counted
from seqnets.insight.canvas import Picture
from seqnets.insight.forecast import Forecast, draw_forecasts
from seqnets.models.number_heads import NumberHead, check_levels, pinball
from seqnets.signatures import signature_of
from seqnets.training.metrics import MeanError, MeanScore, ScaledError
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.typing import Batch, Known

_WINDOWS, _COLUMNS = 3, 2
"""How many windows and columns are drawn."""


class Forecasting(Objective):
    """The loss of a forecaster's head; compared by the squared error of the median.

    Errors are in standardised units, as the literature reports them, but for ``smape`` and
    ``mase``; predictions are written in the data's own units. Targets that are NaN are not scored.

    Args:
        quantiles: Levels that the model's head predicts, rising, with 0.5 among them.

    Raises:
        ConfigError: The quantiles do not rise between 0 and 1, or 0.5 is not among them.
    """

    metric = "mse"

    def __init__(self, quantiles: Sequence[float] = (0.5,)) -> None:
        self.quantiles = check_levels("Forecasting", quantiles)

    def check(self, model: nn.Module, data: DataModule) -> None:
        """Raise ConfigError if the model takes no columns known ahead, or counts that are none."""
        ahead = data.sizes.get("ahead_size", 0) if isinstance(data, DataModule) else 0
        features: Any = getattr(model, "features", None)
        if ahead and features and "ahead" not in signature_of(features).parameters:
            raise ConfigError(
                f"Forecasting: {name_of(model)}.features takes no argument ahead, expected one for "
                f"{counted(ahead, 'column')} known ahead (dataset.known_ahead, dataset.calendar).\n"
                "  model=forecaster has it."
            )

        head, counts = getattr(model, "output", None), getattr(data, "predicts_counts", False)
        if isinstance(head, NumberHead) and not head.shifts and not counts:
            raise ConfigError(
                f"Forecasting: the data are standardised, expected counts for "
                f"{type(head).__name__}.\n  dataset.counts=true leaves targets as they are."
            )

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score K numbers at each step of the horizon."""
        head: Any = getattr(model, "output", None)
        if not isinstance(head, NumberHead) or head.quantiles != self.quantiles:
            raise ConfigError(
                f"Forecasting: the model's head is {type(head).__name__} with quantiles "
                f"{getattr(head, 'quantiles', None)}, expected a NumberHead with "
                f"{self.quantiles}.\n  model=forecaster has one; objective.quantiles must match it."
            )
        ahead = () if batch.ahead is None else (batch.ahead,)
        y, state = model.features(batch.x, state, batch.lengths, *ahead)  # type: ignore[operator]
        if y.shape[:-1] != batch.y.shape:
            raise DataError(
                f"Forecasting: targets have shape {tuple(batch.y.shape)}, expected "
                f"{tuple(y.shape[:-1])}, the predicted horizon and columns."
            )
        count = (~batch.y.isnan()).sum()
        loss = head.loss(y, batch.y) / count.clamp(min=1)
        predictions = head.predict(y).detach()
        return Outcome(loss, count, predictions, batch.y, state, scales=batch.scales)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Squared and absolute error of the median, and scores of the quantiles.

        Of scaled data also ``smape``: the absolute error over the mean magnitude of forecast and
        target in the data's own units, from 0 to 2, which suits data above 0. If the data
        have the errors of a naive forecast, also ``mase``: the absolute error over that forecast's
        for the same series (Hyndman and Koehler, 2006). With several quantiles, also the mean
        pinball loss, and ``coverage``: the share of targets between the outermost two, which should
        equal the difference of their levels.
        """
        median = self.quantiles.index(0.5)
        found: dict[str, Metric] = {
            "mse": MeanError(lambda predicted, true: (predicted[..., median] - true).square()),
            "mae": MeanError(lambda predicted, true: (predicted[..., median] - true).abs()),
        }
        if known.get("scaling") is not None:
            scaling = self.scaling(known)
            found["smape"] = MeanError(
                lambda predicted, true: _symmetric(predicted[..., median], true, scaling)
            )
        naive = known.get("naive_errors", {}).values()
        if any(error > 0 for errors in naive for error in errors):
            found["mase"] = ScaledError(
                lambda predicted, true: (predicted[..., median] - true).abs()
            )
        if len(self.quantiles) > 1:
            found["pinball"] = MeanError(
                lambda predicted, true: pinball(predicted, true, self.quantiles).mean(-1)
            )
            found["coverage"] = MeanScore(
                lambda predicted, true: (predicted[..., 0] <= true) & (true <= predicted[..., -1])
            )
        return found

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """The median, (B, horizon, K), and with several quantiles all, (B, horizon, Q, K)."""
        y, state = model(x, state, lengths)
        found = {"values": y[..., self.quantiles.index(0.5)]}
        if len(self.quantiles) > 1:
            found["quantiles"] = y.mT
        return found, state

    def scaling(self, known: Known) -> Scaling:
        """The standardisation of the forecast columns, K."""
        whole, K = Scaling.read(known["scaling"]), known["sizes"]["output_size"]
        return Scaling(whole.mean[:K], whole.deviation[:K])

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per window: predictions and targets by column, in the data's units.

        With several quantiles, ``quantiles`` has the predictions by level.
        """
        scaling, names = self.scaling(known), _target_columns(known)
        predicted = scaling.undo(outcome.predictions.cpu().mT)  # (windows, horizon, Q, K)
        targets = scaling.undo(batch.y.cpu())
        by_column = partial(_by_column, names, scaling.places)
        rows: list[Row] = []
        for window, truth in zip(predicted, targets, strict=True):
            levels = {str(q): by_column(window[:, i]) for i, q in enumerate(self.quantiles)}
            row: Row = {"prediction": levels["0.5"]}
            if len(levels) > 1:
                row["quantiles"] = levels
            row["target"] = None if truth.isnan().all() else by_column(truth)
            rows.append(row)
        return rows

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Predictions, (N, horizon, K, Q), and targets, (N, horizon, K), standardised."""
        predicted, targets = [], []
        levels = [str(q) for q in self.quantiles]
        for number, row in enumerate(rows, start=1):
            by_level = row.get("quantiles") if len(levels) > 1 else {"0.5": row.get("prediction")}
            by_level = by_level if isinstance(by_level, dict) else {}
            missing = [level for level in levels if level not in by_level]
            if missing:
                raise DataError(
                    f"Row {number}: quantile {missing[0]} is missing, expected "
                    f"{', '.join(levels)} in 'quantiles'."
                )
            predicted.append(
                torch.stack([_values(number, known, by_level[level]) for level in levels], -1)
            )
            targets.append(_values(number, known, row.get("target")))
        scaling = self.scaling(known)
        return scaling(torch.stack(predicted).mT).mT, scaling(torch.stack(targets))

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The metrics of rows; those of series that the training had not have no ``mase``."""
        predictions, targets = self.read(rows, known)
        found = {}
        for name, metric in self.metrics(known).items():
            scales = {"scales": _scales(rows, known)} if isinstance(metric, ScaledError) else {}
            found[name] = float(metric(predictions, targets, **scales))
        return found

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """A few windows of the batch: past, future and forecast."""
        scaling, names = self.scaling(known), _target_columns(known)
        predicted = scaling.undo(outcome.predictions.cpu().mT).mT.numpy()
        true, past = (scaling.undo(v.cpu()).numpy() for v in (batch.y, batch.x[..., : len(names)]))
        shown = torch.linspace(0, len(batch.y) - 1, min(_WINDOWS, len(batch.y))).round().long()
        columns = sorted({0, len(names) - 1})[:_COLUMNS]
        forecasts = [
            [Forecast(past[w, :, k], true[w, :, k], predicted[w, :, k]) for w in shown.tolist()]
            for k in columns
        ]
        return {"forecast": draw_forecasts([names[k] for k in columns], forecasts, self.quantiles)}


def _symmetric(predicted: Tensor, true: Tensor, scaling: Scaling) -> Tensor:
    """Each absolute error over the mean magnitude of both, in the data's units; 0 if both are 0."""
    mean, unit = scaling.mean.to(true), scaling.deviation.to(true)
    missed = unit * (predicted - true).abs()
    sizes = (mean + unit * predicted).abs() + (mean + unit * true).abs()
    # near 0 the sizes may be rounded to less than what they are apart
    return (2 * missed / sizes).clamp(max=2).masked_fill(missed == 0, 0)


def _target_columns(known: Known) -> list[str]:
    """The forecast columns: the first ones."""
    return known["columns"][: known["sizes"]["output_size"]]


def _scales(rows: Sequence[Row], known: Known) -> Tensor:
    """The errors of the naive forecast of each row's series, (N, K); NaN if unknown."""
    unknown = [math.nan] * known["sizes"]["output_size"]
    series = known["naive_errors"]
    names = ["" if "" in series else row.get("id") for row in rows]
    return torch.tensor([series.get(name, unknown) for name in names])


def _by_column(
    names: Sequence[str], places: Sequence[int], values: Tensor
) -> dict[str, list[float | None]]:
    """Values (horizon, K) by column, rounded to each column's places; None for NaN."""
    return {
        name: [None if math.isnan(value) else round(value, digits) for value in column.tolist()]
        for name, digits, column in zip(names, places, values.T, strict=True)
    }


def _values(number: int, known: Known, columns: Any) -> Tensor:
    """A row's values by column as (horizon, K); NaN for None."""
    horizon = known["sizes"]["horizon"]
    lists = []
    for name in _target_columns(known):
        values = columns.get(name) if isinstance(columns, dict) else None
        if (
            not isinstance(values, list)
            or len(values) != horizon
            or not all(v is None or is_number(v) for v in values)
        ):
            raise DataError(
                f"Row {number}: column {name} has no list of {horizon} numbers, expected one in "
                "the prediction and in the target."
            )
        lists.append([math.nan if value is None else value for value in values])
    return torch.tensor(lists, dtype=torch.float64).T
