"""Baselines of forecasting: persistence, seasonal persistence and a linear model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from seqnets.datasets.windows import Windows

_BLOCK = 512
"""Maximum number of windows in memory at once."""

_FIT_LIMIT = 20_000
"""Maximum number of training windows, evenly spaced, that the linear model is fitted to."""

_RIDGE = 1e-3
"""Weight of the squared coefficients, per window."""

Forecast = Callable[[np.ndarray], np.ndarray]
"""Maps past values, (N, lookback), to future values, (N, horizon)."""


def forecast_baselines(
    train: Windows, test: Windows, outputs: int, season: int = 0
) -> dict[str, float]:
    """Return the mean squared errors of simple forecasts over all test windows and targets.

    - ``last value``: the last value is repeated.
    - ``last season``: the last ``season`` steps are repeated; omitted if 0.
    - ``linear``: linear regression of each future step on the past steps, both relative to the
      last past value. All targets share the coefficients, fitted to the training part by least
      squares with a small ridge penalty.

    Args:
        train: Windows of the training part.
        test: Windows of the test part.
        outputs: Number of target columns, K, which are the first columns of the inputs.
        season: Period of the seasonal forecast, in steps; 0 for no such forecast.

    References:
        Zeng et al., 2023, "Are Transformers Effective for Time Series Forecasting?",
        arXiv:2205.13504 (NLinear, the linear model trained by gradient descent).
    """
    horizon = test.horizon
    baselines: dict[str, Forecast] = {
        "last value": lambda past: np.repeat(past[:, -1:], horizon, 1)
    }
    if season:
        periods = -(-horizon // season)
        baselines["last season"] = lambda past: np.tile(past[:, -season:], periods)[:, :horizon]
    baselines["linear"] = _fit_linear(train, outputs)

    errors, scored = dict.fromkeys(baselines, 0.0), 0
    for past, future in _iter_targets(test, outputs):
        known = np.isfinite(future)
        scored += int(known.sum())
        for name, forecast in baselines.items():
            error = np.where(known, forecast(past) - future, 0)
            errors[name] += float(np.square(error).sum())
    return {name: error / max(scored, 1) for name, error in errors.items()}


def _fit_linear(train: Windows, outputs: int) -> Forecast:
    """Fit the linear model by ridge regression; see :func:`forecast_baselines`."""
    gram = np.zeros((train.lookback + 1, train.lookback + 1))
    moments = np.zeros((train.lookback + 1, train.horizon))
    for past, future in _iter_targets(train, outputs, _FIT_LIMIT):
        complete = np.isfinite(future).all(1)
        regressors, last = _regressors(past[complete])
        gram += regressors.T @ regressors
        moments += regressors.T @ (future[complete] - last)
    windows = max(gram[-1, -1], 1.0)  # the last feature is 1
    weight = np.linalg.solve(gram + _RIDGE * windows * np.eye(len(gram)), moments)

    def forecast(past: np.ndarray) -> np.ndarray:
        regressors, last = _regressors(past)
        return regressors @ weight + last

    return forecast


def _regressors(past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return past values relative to the last, with a constant 1, and the last values, (N, 1)."""
    last = past[:, -1:]
    return np.concatenate([past - last, np.ones_like(last)], 1), last


def _iter_targets(
    windows: Windows, outputs: int, limit: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield past and future values in blocks, float64; a row is one target of one window."""
    count = len(windows)
    chosen = torch.linspace(0, count - 1, min(limit or count, count)).round().long()
    for rows in chosen.split(_BLOCK):
        x, y, *_ = windows.batch(rows)
        past, future = (
            values.mT.flatten(0, 1).double().numpy() for values in (x[..., :outputs], y)
        )
        yield past, future
