"""Numbers that were said, against the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqnets.errors import counted
from seqnets.insight.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_scatter(said: np.ndarray, true: np.ndarray) -> Figure:
    """Draw a point for each number; what is right lies on the diagonal.

    Args:
        said: (N,).
        true: (N,). Points where either is no finite number are left out, and counted.
    """
    finite = np.isfinite(said) & np.isfinite(true)
    said, true = said[finite], true[finite]
    figure, axis = new_figure(4.8, 4.8)
    low, high = (min(said.min(), true.min()), max(said.max(), true.max())) if len(said) else (0, 1)
    margin = 0.05 * (high - low) or 0.5
    ends = (low - margin, high + margin)
    axis.plot(ends, ends, color="0.6", linewidth=1, zorder=1)
    axis.scatter(true, said, s=18, alpha=0.6, linewidths=0, zorder=2)
    axis.set(xlim=ends, ylim=ends, xlabel="true", ylabel="said", aspect="equal")
    axis.grid(color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    error = f"mean absolute error {np.abs(said - true).mean():.3g}" if len(said) else "no numbers"
    lost = f", {np.sum(~finite)} not finite" if not finite.all() else ""
    axis.set_title(f"{counted(len(said), 'sequence')}, {error}{lost}", loc="left", fontsize=9)
    return figure
