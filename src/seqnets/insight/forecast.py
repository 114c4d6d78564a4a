"""Forecasts and their targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnets.insight.canvas import new_figure, plain, put_legend, whole_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAST, _TARGET, _PREDICTION = "0.45", "black", "tab:blue"


@dataclass(frozen=True)
class Forecast:
    """A forecast of one series, made at one step.

    Attributes:
        past: The known values, (T,).
        target: The values that followed, (horizon,); NaN where unknown.
        prediction: The predicted quantiles, (horizon, Q).
    """

    past: np.ndarray
    target: np.ndarray
    prediction: np.ndarray


def draw_forecasts(
    names: Sequence[str],
    forecasts: Sequence[Sequence[Forecast]],
    quantiles: Sequence[float] = (0.5,),
    turns: float = 1.5,
) -> Figure:
    """Draw forecasts: a row for each series, a column for each forecast step.

    Args:
        names: Names of the series.
        forecasts: Forecasts of each series, made at the same steps.
        quantiles: The Q levels of the predicted quantiles, including 0.5. Levels symmetric about
            the median are drawn as a band.
        turns: Length of the past to draw, in horizons.
    """
    rows, columns = len(forecasts), len(forecasts[0])
    figure, axes = new_figure(
        1 + 3.2 * columns, 0.9 + 1.9 * rows, nrows=rows, ncols=columns, sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    for name, line, series in zip(names, axes, forecasts, strict=True):
        for axis, forecast in zip(line, series, strict=True):
            _draw(axis, forecast, quantiles, turns)
        line[0].set_ylabel(plain(name))
    for axis in axes[-1]:
        axis.set_xlabel("steps from now")
        whole_steps(axis.xaxis)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    put_legend(figure, handles, most=len(handles), loc="outside upper left")
    return figure


def _bands(quantiles: Sequence[float]) -> list[tuple[int, int]]:
    """Index pairs of the levels symmetric about the median, outermost first."""
    return [
        (low, high)
        for low, below in enumerate(quantiles)
        for high, above in enumerate(quantiles)
        if below < 0.5 and math.isclose(below + above, 1)
    ]


def _draw(axis: Any, forecast: Forecast, quantiles: Sequence[float], turns: float) -> None:
    horizon, median = len(forecast.target), quantiles.index(0.5)
    past = forecast.past[-round(turns * horizon) :]
    coming = np.arange(horizon + 1)  # starts at the last known step, where all lines meet
    target = np.concatenate([past[-1:], forecast.target])
    prediction = np.concatenate([np.tile(past[-1:, None], len(quantiles)), forecast.prediction])
    for low, high in _bands(quantiles):
        share = quantiles[high] - quantiles[low]
        axis.fill_between(
            coming, prediction[:, low], prediction[:, high], color=_PREDICTION, linewidth=0,
            alpha=0.12 + 0.16 * low, label=f"{share:.0%} interval",
        )  # fmt: skip
    axis.plot(np.arange(1 - len(past), 1), past, color=_PAST, linewidth=1, label="known")
    axis.plot(coming, target, color=_TARGET, linewidth=1, label="target")
    axis.plot(coming, prediction[:, median], color=_PREDICTION, linewidth=1.5, label="forecast")
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
