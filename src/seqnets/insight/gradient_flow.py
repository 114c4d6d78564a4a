"""How far back in time gradients reach."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from seqnets.errors import counted
from seqnets.insight.canvas import COLOURS, new_figure, put_legend, shortened, whole_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SMALLEST = 1e-12
"""The lowest norm that is drawn, as a share of the highest."""

_INSIDE = 6
"""Maximum number of layers whose legend has room among the lines."""


def reach(norms: np.ndarray) -> float:
    """The steps until the median norm is below 1 % of that at the last one; all if it never is.

    NaN if there is no gradient at the last step, or it is not finite at some step.

    Args:
        norms: Norms of gradients k steps before each row's last one, (B, T); NaN where none is.
            Rows are compared as shares of their norms at the last step; those with none there are
            left out.
    """
    _, middle, _ = _quartiles(norms)
    if not (middle[0] > 0 and np.isfinite(middle).all()):
        return float("nan")
    below = np.flatnonzero(middle < 0.01 * middle[0])
    return int(below[0]) if len(below) else len(middle)


def per_step(norms: np.ndarray) -> float:
    """By what the median norm is multiplied with each step back, on average (geometric mean).

    Below 1, gradients vanish; above, they explode. It counts until the norm is zero; NaN if that is
    at once. A norm that falls and rises again, as where the loss also enters at early steps, counts
    until its lowest point, unless it rises further above its start than it had fallen below.

    Args:
        norms: As for :func:`reach`.
    """
    _, middle, _ = _quartiles(norms)
    zeros = np.flatnonzero(middle == 0)
    last = (zeros[0] if len(zeros) else len(middle)) - 1
    if last <= 0:
        return float("nan")
    with np.errstate(invalid="ignore"):  # between infinities: NaN
        shares = middle[: last + 1] / middle[0]
    lowest = shares.argmin()
    if shares[lowest] * shares[last] < 1:
        last = lowest
    return float(shares[last] ** (1 / last))


def _quartiles(norms: np.ndarray) -> np.ndarray:
    """The lower quartile, the median and the upper quartile of the rows' norms, (3, T).

    Rows are first scaled to the same norm at their last steps, the median there: else what differs
    between steps would also be which rows are long enough to have them. Rows without a gradient
    there are left out, unless all are.
    """
    norms = norms.astype(np.float64)
    first = norms[:, :1]
    starting = (np.isfinite(first) & (first > 0))[:, 0]
    if starting.any():
        scaled = norms[starting] / first[starting] * np.median(first[starting])
        # steps of the others alone; if no row has a number there, gradients are NaN
        norms = scaled[:, ~np.isnan(scaled).all(0) | np.isnan(norms).all(0)]
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # between infinities: NaN
        warnings.filterwarnings("ignore", "All-NaN slice")
        return np.nanquantile(norms, [0.25, 0.5, 0.75], 0)


def draw_gradient_flow(layers: Mapping[str, np.ndarray]) -> Figure:
    """Draw the norms of gradients with respect to earlier states: a line and a band per layer.

    The line is the median over rows, scaled to the same norm at their last steps, and the band
    reaches from the lower to the upper quartile. A norm that is zero, as beyond the reach of
    truncated backpropagation, ends the line.

    Args:
        layers: By name, norms of gradients k steps before each row's last one, (B, T); NaN where a
            row has no such step.
    """
    figure, axis = new_figure(7.2, 4.2)
    names = shortened(list(layers))
    if len(names) > len(COLOURS):  # then they tell the depth
        from matplotlib import colormaps  # installed, since there is a figure

        axis.set_prop_cycle(color=colormaps["viridis"](np.linspace(0, 0.95, len(names))))
    for name, norms in zip(names, layers.values(), strict=True):
        low, middle, high = np.minimum(_quartiles(norms), np.finfo(np.float32).max)
        steps, far, rate = np.arange(len(middle)), reach(norms), per_step(norms)
        label = f"{name}: " + (f"× {rate:.3g} a step" if np.isfinite(rate) else "no rate")
        if far < len(middle):
            label += f", below 1 % after {counted(int(far), 'step')}"
        marker = "." if len(middle) < 40 else None
        shown = np.where(middle > 0, middle, np.nan)
        (line,) = axis.plot(steps, shown, marker=marker, label=label)
        there = np.isfinite(shown)
        color = line.get_color()
        axis.fill_between(steps[there], low[there], high[there], color=color, alpha=0.18, lw=0)
    drawn = np.concatenate([line.get_ydata() for line in axis.lines])
    if np.isfinite(drawn).any():
        highest = np.nanmax(drawn)
        lowest = max(np.nanmin(drawn), _SMALLEST * highest) / 2
        axis.set_yscale("log")
        axis.set_ylim(lowest, 2 * highest)
        last = max(np.flatnonzero(line.get_ydata() > lowest).max(initial=0) for line in axis.lines)
        axis.set_xlim(-0.04 * max(last, 1), 1.04 * max(last, 1))
    axis.set(xlabel="steps before the last one", ylabel="norm of the loss's gradient")
    whole_steps(axis.xaxis)
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if len(names) <= _INSIDE:
        axis.legend(loc="best", frameon=False, fontsize="small")
    else:
        below = put_legend(figure, axis.lines, 2, loc="outside lower left", fontsize="small")
        figure.set_figheight(figure.get_figheight() + below)
    return figure
