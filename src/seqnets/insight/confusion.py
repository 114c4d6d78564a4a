"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.errors import counted
from seqnets.insight.canvas import new_figure, plain, tilt, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_READABLE = 40
"""Maximum number of classes for which names and counts are written."""


def draw_confusion(counts: np.ndarray, labels: Sequence[str], unit: str = "sequence") -> Figure:
    """Draw a row for each target class; correct predictions lie on the diagonal.

    A cell's shade is its share of the row, so that rare classes are as visible as common ones.
    Cells show counts; an empty row stays white.

    Args:
        counts: The confusion matrix, (C, C): target by prediction.
        labels: Names of the C classes.
        unit: What was counted.
    """
    classes = len(labels)
    cell = 0.36 if classes <= _READABLE else 14 / classes
    names = [plain(label) for label in labels]
    beside = 0.085 * max(map(width_of, names)) + 0.5 if classes <= _READABLE else 0.7
    side = max(cell * classes, 1.8)
    figure, axes = new_figure(side + beside + 0.9, side + beside + 0.4)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_color("#999999")
    suffix = "" if classes <= _READABLE else ", by the class's number"
    axes.set(xlabel=f"prediction{suffix}", ylabel=f"target{suffix}")
    if classes <= _READABLE:
        axes.set_xticks(range(classes), names, rotation=tilt(names, side / classes))
        axes.set_yticks(range(classes), names)
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#E4E4E4", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        for row, column in np.argwhere(counts):
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.5 else "#333333",
                fontsize=8 if counts[row, column] < 1000 else 6,
            )
    correct, total = int(counts.trace()), int(counts.sum())
    share = f", {correct / total:.1%} correct" if total else ""
    axes.set_title(f"{counted(total, unit)}{share}", loc="left", fontsize=9)
    bar = figure.colorbar(shown, ax=axes, shrink=min(1.0, 2.2 / side), pad=0.02, ticks=[0, 0.5, 1])
    bar.set_label("share of the row", fontsize=8)
    bar.outline.set_edgecolor("#999999")
    bar.ax.tick_params(length=0, labelsize=8)
    return figure
