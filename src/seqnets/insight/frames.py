"""Videos, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_frames(videos: Mapping[str, np.ndarray], count: int = 10) -> Figure:
    """Draw each video as a row of frames, with equal steps in the same column.

    Args:
        videos: Videos by name, each (T, C, height, width) in 0..1. Three channels are drawn as
            RGB; any other number is averaged and drawn in grey.
        count: Maximum number of frames to draw, from the first.
    """
    steps = min(count, max(len(video) for video in videos.values()))
    *_, height, width = next(iter(videos.values())).shape
    figure, axes = new_figure(
        1.1 + 0.95 * steps,
        0.35 + (0.1 + 0.95 * height / width) * len(videos),
        nrows=len(videos),
        ncols=steps,
        squeeze=False,
    )
    for row, (name, video) in zip(axes, videos.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for step, panel in enumerate(row):
            panel.set_xticks([])
            panel.set_yticks([])
            if step >= len(video):
                panel.spines[:].set_visible(False)
                continue
            panel.spines[:].set_color("0.8")
            frame = video[step].clip(0, 1)
            if len(frame) == 3:
                panel.imshow(frame.transpose(1, 2, 0))
            else:
                panel.imshow(frame.mean(0), cmap="gray", vmin=0, vmax=1)
    for step, panel in enumerate(axes[0], start=1):
        panel.set_title(f"{step}", fontsize="small", color="0.4")
    return figure
