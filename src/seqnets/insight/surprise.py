"""Text coloured by the surprisal of its tokens."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Passage = tuple[Sequence[str], Sequence[float]]
"""Tokens of a text, and the surprisal of each in nats, NaN for tokens given as context."""

_COLUMN, _LINE = 0.088, 0.2
"""Inches per letter and per line."""

_LINES = 4
"""Minimum number of lines, for which the colour bar has room."""

_SIZE = 11.0
"""Font size in points, at which a letter is one column wide."""


def draw_surprise(passages: Sequence[Passage], columns: int = 96, lines: int = 32) -> Figure:
    """Write passages with each token on a coloured background: darker means more surprising.

    An empty line separates passages. The colour scale ends at the 99th percentile of the
    surprisals drawn.

    Args:
        passages: Passages to write.
        columns: Letters per line.
        lines: Maximum number of lines to draw.
    """
    page = list(_wrapped(passages, columns))[:lines]
    while page and not page[-1]:
        page.pop()
    known = [cost for line in page for *_, cost in line if math.isfinite(cost)]
    highest = max(float(np.quantile(known, 0.99)) if known else 0.0, 1e-3)
    paper = np.full((max(len(page), _LINES), columns), np.nan)
    for row, line in enumerate(page):
        for column, text, cost in line:
            paper[row, column : column + _width(text)] = min(cost, 2 * highest)
    figure, axes = new_figure(_COLUMN * columns + 1.2, _LINE * len(paper) + 0.2)
    shown = axes.imshow(paper, cmap="YlOrRd", vmin=0, vmax=highest, aspect="auto")
    axes.set_axis_off()
    for row, line in enumerate(page):
        for column, text, cost in line:
            axes.text(
                column - 0.5, row, text, family="monospace", fontsize=_SIZE, va="center_baseline",
                color="white" if cost > 0.62 * highest else "#333333", parse_math=False,
                in_layout=False,  # else a completely full line would shrink the axes
            )  # fmt: skip
    bar = figure.colorbar(
        shown, ax=axes, extend="max", label="nats", pad=0.01,
        aspect=max(8, 5 * _LINE * len(paper)),
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def _wrapped(passages: Sequence[Passage], columns: int) -> Iterator[list[tuple[int, str, float]]]:
    """Yield lines of (column, text, nats), with an empty line after each passage."""
    for tokens, nats in passages:
        line: list[tuple[int, str, float]] = []
        column = 0
        for token, cost in zip(tokens, nats, strict=True):
            text = _printable(token)
            room = columns // max(map(_width, text), default=1)
            for start in range(0, len(text), room):
                part = text[start : start + room]
                if column + _width(part.rstrip()) > columns:
                    yield line
                    line, column = [], 0
                line.append((column, part[: columns - column], cost))
                column += _width(part)
            if "\n" in token:
                yield line
                line, column = [], 0
        if line:
            yield line
        yield []


def _width(text: str) -> int:
    """The display width of a text in columns: CJK characters and emoji take two."""
    return sum(1 + (unicodedata.east_asian_width(sign) in "WF") for sign in text)


def _printable(token: str) -> str:
    """A token with visible line ends, and a space for each unprintable character."""
    shown = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    return "".join(sign if sign.isprintable() else " " for sign in shown)
