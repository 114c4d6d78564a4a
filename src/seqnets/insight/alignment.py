"""Attention weights between source and output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure, plain, tilt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.27
"""Inches per token."""

LETTER = 0.1
"""Approximate inches per letter."""


def draw_alignment(weights: np.ndarray, read: Sequence[str], written: Sequence[str]) -> Figure:
    """Draw a row for each output token: the darker a cell, the more attention its source token got.

    Args:
        weights: Attention weights, (U, T), in 0..1.
        read: The T source tokens, left to right.
        written: The U output tokens, top to bottom.
    """
    read, written = ([plain(token) for token in tokens] for tokens in (read, written))
    wide = CELL * len(read) + LETTER * max(map(len, written)) + 1.4
    high = CELL * len(written) + LETTER * max(map(len, read)) + 0.6
    figure, axes = new_figure(wide, high)
    shown = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(read)), read, rotation=tilt(read))
    axes.set_yticks(range(len(written)), written)
    axes.set(xlabel="read", ylabel="written")
    axes.xaxis.set_label_position("top")
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.set_xticks(np.arange(len(read) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(written) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#E4E4E4", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("#999999")
    bar = figure.colorbar(
        shown, ax=axes, shrink=min(1.0, 2.2 / high), aspect=12, pad=0.02, ticks=[0, 0.5, 1]
    )
    bar.set_label("attention", fontsize=8)
    bar.outline.set_edgecolor("#999999")
    bar.ax.tick_params(length=0)
    return figure
