"""Which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.errors import counted
from seqnets.insight.canvas import new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_READABLE = 40
"""Classes up to which names and counts are written."""


def count_confusions(true: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """Count how often each class was taken for each, (C, C): true by said.

    Args:
        true: Class numbers, (N,); what is none of them is left out.
        said: Those that were said in their place, (N,); what is none of them is left out too.
        classes: Classes there are, C.
    """
    known = (true >= 0) & (true < classes) & (said >= 0) & (said < classes)
    pairs = true[known] * classes + said[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def draw_confusion(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Draw a row for each true class; what is right lies on the diagonal.

    The darker a cell, the greater its share of the row: rare classes are seen as well as common
    ones. Cells hold counts; a row without any stays white.

    Args:
        counts: How often each class was taken for each, (C, C): true by said.
        labels: Names of the C classes.
    """
    classes = len(labels)
    cell = 0.36 if classes <= _READABLE else 14 / classes
    names = [plain(label) for label in labels]
    beside = 0.085 * max(map(len, names)) + 0.5 if classes <= _READABLE else 0.7
    side = max(cell * classes, 1.8)
    figure, axes = new_figure(side + beside + 0.9, side + beside + 0.4)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_color("#999999")
    what = "" if classes <= _READABLE else ", by the class's number"
    axes.set(xlabel=f"said{what}", ylabel=f"true{what}")
    if classes <= _READABLE:
        axes.set_xticks(range(classes), names, rotation=90)
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
    right, total = int(counts.trace()), int(counts.sum())
    share = f", {right / total:.1%} right" if total else ""
    axes.set_title(f"{counted(total, 'sequence')}{share}", loc="left", fontsize=9)
    bar = figure.colorbar(shown, ax=axes, shrink=min(1.0, 2.2 / side), pad=0.02, ticks=[0, 0.5, 1])
    bar.set_label("share of the row", fontsize=8)
    bar.outline.set_edgecolor("#999999")
    bar.ax.tick_params(length=0, labelsize=8)
    return figure
