"""Baselines of forecasting: persistence, seasonal persistence and a linear model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from seqnets.datasets.series.windows import Windows

_BLOCK = 512
"""Maximum number of windows in memory at once."""

_FIT_LIMIT = 20_000
"""Maximum number of training windows, evenly spaced, that the linear model is fitted to."""

_RIDGE = 1e-3
"""Weight of the squared coefficients, per window."""

Forecast = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps past values, (N, K, lookback), and what is known ahead, (N, A), to future values,
(N, K, horizon)."""


def forecast_baselines(
    train: Windows, test: Windows, outputs: int, season: int = 0, units: np.ndarray | None = None
) -> dict[str, float]:
    """The mean squared errors of simple forecasts over all test windows and targets.

    - ``last value``: the last value is repeated.
    - ``last season``: the last ``season`` steps are repeated; omitted if 0.
    - ``linear``: linear regression of each future step on the past steps, both relative to the
      last past value, and on the features that are known ahead, from the last past step on. All
      targets share the coefficients, fitted to the training part by least squares with a small
      ridge penalty, in units of each.

    Args:
        train: Windows of the training part.
        test: Windows of the test part.
        outputs: Number of target columns, K, which are the first columns of the inputs.
        season: Period of the seasonal forecast, in steps; 0 for no such forecast.
        units: Deviations of targets that are not standardised, (K,).

    References:
        Zeng et al., 2023, "Are Transformers Effective for Time Series Forecasting?",
        arXiv:2205.13504 (NLinear, the linear model trained by gradient descent).
    """
    horizon, units = test.horizon, np.ones(outputs) if units is None else units
    units = units[:, None]
    baselines: dict[str, Forecast] = {
        "last value": lambda past, _: np.repeat(past[..., -1:], horizon, -1)
    }
    if season:
        order = np.arange(horizon) % season - season
        baselines["last season"] = lambda past, _: past[..., order]
    baselines["linear"] = _fit_linear(train, units)

    errors, scored = dict.fromkeys(baselines, 0.0), 0
    for past, future, known in _iter_windows(test, units):
        there = np.isfinite(future)
        scored += int(there.sum())
        for name, forecast in baselines.items():
            error = np.where(there, units * (forecast(past, known) - future), 0)
            errors[name] += float(np.square(error).sum())
    return {name: error / max(scored, 1) for name, error in errors.items()}


def _fit_linear(train: Windows, units: np.ndarray) -> Forecast:
    """Fit the linear model by ridge regression; see :func:`forecast_baselines`.

    What is known ahead is the same for all targets of a window: their other regressors and their
    values are added up before they are multiplied by it, which is then not repeated for each.
    """
    gram, moments, targets = np.zeros(()), np.zeros(()), 0
    for past, future, known in _iter_windows(train, units, _FIT_LIMIT):
        complete = np.isfinite(future).all(-1, keepdims=True)
        regressors, last = _regressors(past)
        own, values = (np.where(complete, found, 0) for found in (regressors, future - last))
        rows, shared = own.reshape(-1, own.shape[-1]), own.sum(1).T @ known
        gram = gram + np.block(
            [[rows.T @ rows, shared], [shared.T, (known * complete.sum(1)).T @ known]]
        )
        moments = moments + np.concatenate(
            [rows.T @ values.reshape(len(rows), -1), known.T @ values.sum(1)]
        )
        targets += int(complete.sum())
    penalty = _RIDGE * max(targets, 1) * np.eye(len(gram))
    weight, weight_known = np.split(np.linalg.solve(gram + penalty, moments), [train.lookback + 1])

    def forecast(past: np.ndarray, known: np.ndarray) -> np.ndarray:
        regressors, last = _regressors(past)
        return regressors @ weight + (known @ weight_known)[:, None] + last

    return forecast


def _regressors(past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Past values relative to the last, with a constant 1, and the last, (N, K, 1)."""
    last = past[..., -1:]
    return np.concatenate([past - last, np.ones_like(last)], -1), last


def _iter_windows(
    windows: Windows, units: np.ndarray, limit: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield past and future values and what is known ahead in blocks of windows, float64.

    Values are in units of their targets, (K, 1).
    """
    count = len(windows)
    chosen = torch.linspace(0, count - 1, min(limit or count, count)).round().long()
    for rows in chosen.split(_BLOCK):
        batch = windows.batch(rows)
        known = batch.x[:, :0, 0]
        if batch.ahead is not None:
            last = batch.x[:, -1:, -windows.ahead :]
            known = torch.cat([last, batch.ahead], 1).flatten(1)
        values = batch.x[..., : len(units)], batch.y
        past, future = (found.mT.double().numpy() / units for found in values)
        yield past, future, known.double().numpy()
