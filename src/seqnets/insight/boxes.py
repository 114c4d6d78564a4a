"""Box plots of the scores of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_boxes(panels: Mapping[str, Mapping[str, Sequence[float]]], reference: str) -> Figure:
    """Draw a panel for each task, with a box for each variant and a dot for each run.

    Outliers far above the other runs are drawn as triangles at the upper edge.

    Args:
        panels: For each task, keyed by its axis label, the runs' scores of each variant.
        reference: The variant whose median is drawn as a line across the panel.
    """
    count = len(panels)
    figure, axes = new_figure(3.6 * count, 3.8, ncols=count, squeeze=False)
    for axis, (label, variants) in zip(axes[0], panels.items(), strict=True):
        names, runs = list(variants), [np.asarray(figures) for figures in variants.values()]
        everything = np.concatenate(runs)
        low, middle = everything.min(), np.median(everything)
        top = max(np.quantile(everything, 0.9), middle) + 0.6 * (middle - low + 1e-9)
        places = range(1, len(names) + 1)
        axis.boxplot(
            [np.minimum(figures, top) for figures in runs],
            positions=places,
            widths=0.6,
            showfliers=False,
            medianprops={"color": "tab:orange", "linewidth": 2},
        )
        for place, figures in zip(places, runs, strict=True):
            outside = figures > top
            across = place + np.linspace(-0.15, 0.15, len(figures))
            axis.plot(across[~outside], figures[~outside], "o", color="tab:blue", ms=3, alpha=0.7)
            axis.plot(across[outside], [top] * outside.sum(), "^", color="tab:red", ms=5)
        axis.axhline(np.median(runs[names.index(reference)]), color="0.6", lw=1, ls="--", zorder=0)
        axis.set_xticks(list(places), names, rotation=60)
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
