"""What is drawn on."""

from __future__ import annotations

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
        rate: Samples a second.
    """

    samples: np.ndarray
    rate: int


_LONGEST = 24
"""Letters of a name that are drawn."""

Picture = Union["Figure", Sound, str]
"""A figure to look at, a sound to hear, or a text to read."""


def plain(text: str) -> str:
    """Return a name of the user's as matplotlib draws it letter by letter, cut where it is long.

    No formula is in it.
    """
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return cut.replace("$", r"\$")


def new_figure(width: float = 6.4, height: float = 4.0, **grid: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes, away from any window.

    Args:
        width: Inches.
        height: Inches.
        **grid: As for matplotlib's ``Figure.subplots``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    with optional("Pictures are drawn by matplotlib", "plot"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)
