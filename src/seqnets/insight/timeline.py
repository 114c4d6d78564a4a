"""Step labels over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure, plain, plot_features, whole_steps, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (
    "#D9D9D9", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442",
    "#000000", "#8C564B", "#7F7F7F", "#17BECF",
)  # fmt: skip
"""The first is for the most common label, as background; labels beyond the last share it."""

_WIDTH = 9.0
"""Width of the figure in inches."""


def draw_timeline(
    tracks: Mapping[str, np.ndarray],
    labels: Sequence[str],
    signal: np.ndarray | None = None,
    steps: int = 600,
) -> Figure:
    """Draw the label of each step as one strip per track, with the signal above.

    Args:
        tracks: Label numbers by track name, such as "target" and "prediction", each (T,);
            negative where there is no label. The first track decides the background label.
        labels: Label names, indexed by number.
        signal: Features, (T, I); at most eight are drawn.
        steps: Maximum number of steps to draw.
    """
    shown = {name: track[:steps] for name, track in tracks.items()}
    length = max(len(track) for track in shown.values())
    first = next(iter(shown.values()))
    order = np.argsort(-np.bincount(first[first >= 0], minlength=len(labels)), kind="stable")
    colours = {
        int(label): _COLOURS[min(place, len(_COLOURS) - 1)] for place, label in enumerate(order)
    }
    heights = [0.45] * len(shown) if signal is None else [2.2, *[0.45] * len(shown)]
    figure, axes = new_figure(
        _WIDTH, sum(heights) + 1.1, nrows=len(heights), sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    if signal is not None:
        plot_features(axes[0, 0], signal[:steps, :8])
        axes[0, 0].set_ylabel("features")
    for axis, (name, track) in zip(axes[-len(shown) :, 0], shown.items(), strict=True):
        edges = np.flatnonzero(np.diff(track)) + 1
        for start, stop in zip([0, *edges], [*edges, len(track)], strict=True):
            if track[start] >= 0:
                colour = colours[int(track[start])]
                axis.axvspan(start - 0.5, stop - 0.5, color=colour, linewidth=0)
        axis.set_yticks([0.5], [name])
        axis.set_ylim(0, 1)
        axis.tick_params(left=False)
        axis.spines[:].set_visible(False)
    axes[-1, 0].set_xlim(-0.5, length - 0.5)
    axes[-1, 0].set_xlabel("step")
    whole_steps(axes[-1, 0].xaxis)
    _legend(figure, shown, labels, colours)
    return figure


def _legend(
    figure: Figure,
    tracks: Mapping[str, np.ndarray],
    labels: Sequence[str],
    colours: Mapping[int, str],
) -> None:
    from matplotlib.patches import Patch

    seen = np.unique(np.concatenate(list(tracks.values())))
    names: dict[str, list[str]] = defaultdict(list)
    for label in seen[seen >= 0]:
        names[colours[label]].append(plain(labels[label]))
    shared = names.pop(_COLOURS[-1], [])
    shown = {colour: name for colour, (name,) in names.items()}
    if shared:
        shown[_COLOURS[-1]] = shared[0] if len(shared) == 1 else f"{len(shared)} others"
    longest = max(map(width_of, shown.values()), default=0)
    handles = [Patch(color=colour, label=name) for colour, name in shown.items()]
    columns = min(6, int(_WIDTH / (0.6 + 0.08 * longest)), max(1, len(handles)))
    row_major = [each for first in range(columns) for each in handles[first::columns]]
    figure.legend(  # fills column by column
        handles=row_major, loc="outside upper left", ncols=columns, frameon=False, fontsize="small"
    )
