"""Predicted numbers against their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqnets.errors import counted
from seqnets.insight.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_scatter(prediction: np.ndarray, target: np.ndarray) -> Figure:
    """Draw a point for each prediction; exact ones lie on the diagonal.

    Args:
        prediction: (N,).
        target: (N,). Points where either is not finite are left out and counted in the title.
    """
    finite = np.isfinite(prediction) & np.isfinite(target)
    prediction, target = prediction[finite], target[finite]
    figure, axis = new_figure(4.8, 4.8)
    both = np.concatenate([prediction, target])
    low, high = (both.min(), both.max()) if len(both) else (0, 1)
    margin = 0.05 * (high - low) or 0.5
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color="0.6", linewidth=1, zorder=1)
    axis.scatter(target, prediction, s=18, alpha=0.6, linewidths=0, zorder=2)
    axis.set(xlim=ends, ylim=ends, xlabel="target", ylabel="prediction", aspect="equal")
    axis.locator_params(nbins=5)
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    count, errors = len(prediction), np.abs(prediction - target)
    error = f"mean absolute error {errors.mean():.3g}" if count else "no numbers"
    lost = f", {np.sum(~finite)} not finite" if not finite.all() else ""
    axis.set_title(f"{counted(count, 'sequence')}, {error}{lost}", loc="left", fontsize=9)
    return figure
