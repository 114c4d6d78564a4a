"""Attention weights between source and output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure, plain, tilt, whole_steps, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 0.27
"""Inches per token."""

LETTER = 0.1
"""Approximate inches per letter."""

_READABLE = 60
"""Maximum number of tokens that are written along an axis."""


def draw_alignment(weights: np.ndarray, read: Sequence[str], written: Sequence[str]) -> Figure:
    """Draw a row for each output token: the darker a cell, the more attention its source token got.

    More tokens than can be read are counted instead of written, in a picture of the same size.

    Args:
        weights: Attention weights, (U, T), in 0..1.
        read: The T source tokens, left to right.
        written: The U output tokens, top to bottom.
    """
    read, written = ([plain(token) for token in tokens] for tokens in (read, written))
    across, down = (min(len(tokens), _READABLE) for tokens in (read, written))
    wide = CELL * across + LETTER * max(map(width_of, written)) + 1.4
    high = CELL * down + LETTER * max(map(width_of, read)) + 0.6
    figure, axes = new_figure(wide, high)
    shown = axes.imshow(
        weights, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    axes.set(xlabel="read", ylabel="written")
    axes.xaxis.set_label_position("top")
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for axis, tokens in ((axes.xaxis, read), (axes.yaxis, written)):
        if len(tokens) > _READABLE:
            whole_steps(axis)
            axis.label.set_text(f"{axis.label.get_text()}, by the token's number")
            continue
        axis.set_ticks(range(len(tokens)), tokens)
        axis.set_ticks(np.arange(len(tokens) + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="#E4E4E4", linewidth=0.6)
    if len(read) <= _READABLE:
        axes.tick_params("x", rotation=tilt(read, CELL))
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_color("#999999")
    bar = figure.colorbar(
        shown, ax=axes, shrink=min(1.0, 2.2 / high), aspect=12, pad=0.02, ticks=[0, 0.5, 1]
    )
    bar.set_label("attention", fontsize=8)
    bar.outline.set_edgecolor("#999999")
    bar.ax.tick_params(length=0)
    return figure
