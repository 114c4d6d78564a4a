"""Forecasts that need no training, or one linear system: what a forecaster has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from seqnets.datasets.windows import Windows

_BLOCK = 512
"""Windows that are in memory at once."""

_MOST = 20_000
"""Training windows that the linear forecast is fitted to at most, evenly spread."""

_RIDGE = 1e-3
"""Weight of the squared coefficients, to a window."""

Forecast = Callable[[np.ndarray], np.ndarray]
"""From given values, (N, lookback), to those to tell, (N, horizon)."""


def forecast_baselines(
    train: Windows, test: Windows, outputs: int, season: int = 0
) -> dict[str, float]:
    """Return the mean squared error of simple forecasts over all test windows and targets.

    - ``last value``: all stays as it is.
    - ``last season``: the last ``season`` steps come again and again; left out if 0.
    - ``linear``: each step to tell is a linear function of the steps given, less the last of them.
      All targets share the coefficients, which are the least squares on the training part with a
      small ridge. (Zeng et al., 2023, "Are Transformers Effective for Time Series Forecasting?",
      arXiv:2205.13504, where such a model is called NLinear, fitted by gradients.)
    """
    horizon = test.horizon
    rivals: dict[str, Forecast] = {"last value": lambda past: np.repeat(past[:, -1:], horizon, 1)}
    if season:
        turns = -(-horizon // season)
        rivals["last season"] = lambda past: np.tile(past[:, -season:], turns)[:, :horizon]
    rivals["linear"] = _linear(train, outputs)

    errors, scored = dict.fromkeys(rivals, 0.0), 0
    for past, coming in _pairs(test, outputs):
        there = np.isfinite(coming)
        scored += int(there.sum())
        for name, forecast in rivals.items():
            missed = np.where(there, forecast(past) - coming, 0)
            errors[name] += float(np.square(missed).sum())
    return {name: error / max(scored, 1) for name, error in errors.items()}


def _linear(train: Windows, outputs: int) -> Forecast:
    gram = np.zeros((train.lookback + 1, train.lookback + 1))
    moments = np.zeros((train.lookback + 1, train.horizon))
    for past, coming in _pairs(train, outputs, _MOST):
        whole = np.isfinite(coming).all(1)
        given, last = _given(past[whole])
        gram += given.T @ given
        moments += given.T @ (coming[whole] - last)
    windows = max(gram[-1, -1], 1.0)  # the last feature is 1
    weight = np.linalg.solve(gram + _RIDGE * windows * np.eye(len(gram)), moments)

    def forecast(past: np.ndarray) -> np.ndarray:
        given, last = _given(past)
        forecast: np.ndarray = given @ weight + last
        return forecast

    return forecast


def _given(past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the linear forecast sees of given values, and the last of them, (N, 1)."""
    last = past[:, -1:]
    return np.concatenate([past - last, np.ones_like(last)], 1), last


def _pairs(
    windows: Windows, outputs: int, most: int | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield given and coming values of the targets, each target of a window a row, float64."""
    count = len(windows)
    chosen = torch.linspace(0, count - 1, min(most or count, count)).round().long()
    for rows in chosen.split(_BLOCK):
        x, y, *_ = windows.batch(rows)
        past, coming = (
            values.mT.flatten(0, 1).double().numpy() for values in (x[..., :outputs], y)
        )
        yield past, coming
