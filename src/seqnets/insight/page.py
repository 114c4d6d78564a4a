"""Text whose tokens have coloured backgrounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import new_figure, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Passage = tuple[Sequence[str], Sequence[float]]
"""Tokens of a text, and a number for each, NaN for tokens without one."""

Line = list[tuple[int, str, float]]
"""Parts of tokens: the column, the text and the number of each."""

_COLUMN, _LINE = 0.088, 0.2
"""Inches per letter and per line."""

_LINES, _LETTERS = 4, 40
"""Minimum number of lines, for which the colour bar has room, and of letters per line."""

_SIZE = 11.0
"""Font size in points, at which a letter is one column wide."""


def laid_out(passages: Sequence[Passage], columns: int, lines: int) -> list[Line]:
    """The lines of a page of passages, with an empty line between two.

    Args:
        passages: Passages to write.
        columns: Letters per line.
        lines: Maximum number of lines.
    """
    page = list(_wrapped(passages, columns))[:lines]
    while page and not page[-1]:
        page.pop()
    return page


def draw_page(
    page: Sequence[Line], columns: int, cmap: str, low: float, high: float, label: str, extend: str
) -> Figure:
    """Write a page with each token on the colour of its number.

    Args:
        page: The result of :func:`laid_out`.
        columns: Letters per line; a page of shorter lines is narrower.
        cmap: Matplotlib's name of the colours, of which those far from 0 are dark.
        low: The number at which the scale begins.
        high: The number at which it ends.
        label: What the numbers are.
        extend: Which ends of the scale numbers are beyond: "max", "both" or "neither".
    """
    ends = (column + width_of(text) for line in page for column, text, _ in line)
    columns = min(columns, max((_LETTERS, *ends)))
    paper = np.full((max(len(page), _LINES), columns), np.nan)
    for row, line in enumerate(page):
        for column, text, number in line:
            paper[row, column : column + width_of(text)] = min(number, 2 * high)
    figure, axes = new_figure(_COLUMN * columns + 1.2, _LINE * len(paper) + 0.2)
    shown = axes.imshow(paper, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    axes.set_axis_off()
    for row, line in enumerate(page):
        for column, text, number in line:
            axes.text(
                column - 0.5, row, text, family="monospace", fontsize=_SIZE, va="center_baseline",
                color="white" if abs(number) > 0.62 * high else "#333333", parse_math=False,
                in_layout=False,  # else a completely full line would shrink the axes
            )  # fmt: skip
    bar = figure.colorbar(
        shown, ax=axes, extend=extend, label=label, pad=0.01,
        aspect=max(8, 5 * _LINE * len(paper)),
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure


def _wrapped(passages: Sequence[Passage], columns: int) -> Iterator[Line]:
    """Yield lines, with an empty one after each passage."""
    for tokens, numbers in passages:
        line: Line = []
        column = 0
        for token, number in zip(tokens, numbers, strict=True):
            text = _printable(token)
            room = columns // max(map(width_of, text), default=1)
            for start in range(0, len(text), room):
                part = text[start : start + room]
                if column + width_of(part.rstrip()) > columns:
                    yield line
                    line, column = [], 0
                line.append((column, part[: columns - column], number))
                column += width_of(part)
            if "\n" in token:
                yield line
                line, column = [], 0
        if line:
            yield line
        yield []


def _printable(token: str) -> str:
    """A token with visible line ends, and a space for each unprintable character."""
    shown = token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    return "".join(sign if sign.isprintable() else " " for sign in shown)
