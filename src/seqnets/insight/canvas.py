"""Figures, sounds and label text shared by all pictures."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from seqnets.optional import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sound:
    """A mono sound.

    Attributes:
        samples: (N,) float32 in -1..1.
        rate: Samples per second.
    """

    samples: np.ndarray
    rate: int


COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288",
    "#F0E442", "#000000",
)  # fmt: skip
"""Of curves and classes: those of Okabe and Ito, and two of Tol's, for the colour-blind."""

_MAX_LETTERS = 24
"""Maximum letters of a name that are drawn, by default."""

_LETTER = 0.13
"""Inches of a wide letter of a name, and of the blank around it."""

_MARGINS = 0.15
"""Inches on both sides of a legend together."""

Picture = Union["Figure", Sound, str]
"""A figure, a sound, or a text."""


def width_of(text: str) -> int:
    """The width of a text in letters: CJK characters and emoji take two."""
    return sum(1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def plain(text: str, letters: int = _MAX_LETTERS) -> str:
    """A user's text for matplotlib to draw literally, truncated if wider than letters.

    Dollar signs are escaped, so that nothing is parsed as a formula.
    """
    cut = text[: letters + 1]
    if width_of(cut) > letters:
        while width_of(cut) >= letters:
            cut = cut[:-1]
        cut += "…"
    return cut.replace("$", r"\$")


def tilt(names: Sequence[str], room: float) -> int:
    """The rotation at which names fit side by side, in degrees: short ones stay upright.

    Args:
        names: The names.
        room: Inches for each.
    """
    return 0 if max(map(width_of, names)) * _LETTER <= room else 90


def shortened(names: Sequence[str]) -> list[str]:
    """Names of modules without the parents that they share, but one: layers.0, layers.1."""
    parents = [name.split(".")[:-1] for name in names]
    alike = [len(set(level)) == 1 for level in zip(*parents, strict=False)]
    shared = (*alike, False).index(False)
    return [".".join(name.split(".")[max(0, shared - 1) :]) for name in names]


def whole_steps(axis: Any) -> None:
    """Have an axis of time steps marked at whole numbers only, however few there are."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 2.5, 5, 10]
    axis.set_major_locator(MaxNLocator("auto", steps=steps, integer=True, min_n_ticks=1))


def plot_features(axis: Any, features: np.ndarray) -> None:
    """Plot features over time, (T, I), as thin grey lines."""
    marker = "." if len(features) == 1 else None  # a line needs two steps
    for feature in features.T:
        axis.plot(feature, linewidth=0.8, color="#4D4D4D", alpha=0.6, marker=marker)
    axis.spines[["top", "right"]].set_visible(False)


def put_legend(figure: Figure, handles: Sequence[Any], most: int, **options: Any) -> float:
    """Put a legend outside a figure's axes, in as many columns as there is room for.

    Args:
        figure: The figure.
        handles: What the legend names, in letters that matplotlib's own font has.
        most: Maximum number of columns.
        **options: Passed to matplotlib's ``Figure.legend``.

    Returns:
        Its height in inches.
    """
    for columns in range(most, 0, -1):
        legend = figure.legend(handles=handles, ncols=columns, frameon=False, **options)
        extent = legend.get_window_extent()
        if columns == 1 or extent.width / figure.dpi + _MARGINS <= figure.get_figwidth():
            break
        legend.remove()
    return float(extent.height / figure.dpi)


def new_figure(width: float = 6.4, height: float = 4.0, **grid: Any) -> tuple[Figure, Any]:
    """A figure and its axes, independent of any GUI backend and of matplotlib's colours.

    Args:
        width: Inches.
        height: Inches.
        **grid: Passed to matplotlib's ``Figure.subplots``.

    Raises:
        ConfigError: A size is not a number above 0, or matplotlib is not installed.
    """
    from seqnets.checks import check_number  # late: it needs torch

    check_number("new_figure", above=0, width=width, height=height)
    with optional("Pictures are drawn by matplotlib", "plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(**grid)
    for axis in figure.axes:
        axis.set_prop_cycle(color=COLOURS)
    return figure, axes
