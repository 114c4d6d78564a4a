"""Where a transcription's labels fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnets.insight.canvas import new_figure, plain, plot_features, whole_steps, width_of
from seqnets.typing import BLANK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#000000",
)  # fmt: skip
"""Labels beyond the last begin again: each peak has its name."""

_GREY = "#888888"

_SEEN = 0.1
"""The probability from which a label is drawn."""

_PICTURE = 8
"""The fewest features that are drawn as a picture; fewer are drawn as lines."""

_LETTERS = 48
"""Maximum letters of a transcript that are written above."""

_BESIDE = 80
"""Maximum letters that are written above in one line."""


def draw_transcription(
    probabilities: np.ndarray,
    labels: Sequence[str],
    signal: np.ndarray | None = None,
    written: str = "",
    right: str | None = None,
    steps: int = 600,
) -> Figure:
    """Draw the probability of each label over time, with the input below.

    Each peak is named. The probability of no label is a dotted line.

    Args:
        probabilities: Probabilities of the classes at each step, (T, C); class ``BLANK`` is no
            label.
        labels: Label names, indexed by class.
        signal: Features, (T, I); at least eight are drawn as a picture.
        written: The transcript.
        right: The right one, if known.
        steps: Maximum number of steps to draw.
    """
    shown = probabilities[:steps]
    heights = [2.2] if signal is None else [2.2, 1.4]
    figure, axes = new_figure(
        9.0, sum(heights) + 0.9, nrows=len(heights), sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    axis = axes[0, 0]
    _draw_labels(axis, shown, labels)
    texts = {"written": written, "right": right}
    told = [f"{name}: {plain(text, _LETTERS)}" for name, text in texts.items() if text is not None]
    beside = sum(map(width_of, told)) <= _BESIDE
    axis.set_title(("     " if beside else "\n").join(told), loc="left", fontsize="medium")
    if signal is not None:
        _draw_input(axes[1, 0], signal[:steps])
    axes[-1, 0].set_xlim(-0.5, max(len(shown), 1) - 0.5)
    axes[-1, 0].set_xlabel("step")
    whole_steps(axes[-1, 0].xaxis)
    return figure


def _draw_labels(axis: Any, shown: np.ndarray, labels: Sequence[str]) -> None:
    """A curve for each label that is seen, with its name at each peak, and one for no label."""
    from matplotlib.patheffects import withStroke  # installed, since there is a figure

    halo = withStroke(linewidth=2.5, foreground="white")
    edges, blank = np.arange(len(shown) + 1) - 0.5, shown[:, BLANK]
    axis.stairs(blank, edges, baseline=None, color=_GREY, linestyle=":", linewidth=1.2)
    if len(shown):
        axis.annotate(
            "no label", (1, float(np.median(blank))), (3, 0), color=_GREY, fontsize=8, va="center",
            xycoords=("axes fraction", "data"), textcoords="offset points",
        )  # fmt: skip
    for number in np.flatnonzero(shown.max(0, initial=0) >= _SEEN).tolist():
        if number == BLANK:
            continue
        colour, curve = _COLOURS[(number - 1) % len(_COLOURS)], shown[:, number]
        axis.stairs(curve, edges, color=colour, linewidth=1.2)
        axis.stairs(curve, edges, color=colour, alpha=0.25, fill=True)
        name = "␣" if labels[number] == " " else plain(labels[number])
        for peak in _peaks(curve):
            label = axis.annotate(
                name, (peak, curve[int(peak)]), (0, 2), color=colour, fontsize=9,
                textcoords="offset points", ha="center", va="bottom",
            )  # fmt: skip
            label.set_path_effects([halo])
    axis.set(ylim=(0, 1.15), ylabel="probability", yticks=[0, 0.5, 1])
    axis.spines[["top", "right"]].set_visible(False)


def _peaks(curve: np.ndarray) -> list[float]:
    """The middle of the highest steps of each stretch in which a label is seen."""
    seen = np.concatenate([[False], curve >= _SEEN, [False]])
    edges = np.flatnonzero(seen[1:] != seen[:-1]).reshape(-1, 2)
    found = []
    for start, stop in edges:
        stretch = curve[start:stop]
        found.append(start + float(np.flatnonzero(stretch == stretch.max()).mean()))
    return found


def _draw_input(axis: Any, signal: np.ndarray) -> None:
    if signal.shape[1] >= _PICTURE:
        axis.imshow(signal.T, cmap="Greys", aspect="auto", interpolation="nearest")
        axis.set(yticks=[], ylabel="input")
        return
    plot_features(axis, signal)
    axis.set_ylabel("input")
