"""Memory span of each kind of cell against its width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from seqnets.insight.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "-", "s"),
    ("#009E73", "-", "D"),
    ("#CC79A7", "-", "^"),
    ("#E69F00", "--", "v"),
    ("#56B4E9", "--", "P"),
    ("#7F7F7F", "--", "X"),
    ("#000000", ":", "<"),
)
"""The colour-blind-safe palette of Okabe and Ito; line styles and markers differ too."""


def draw_spans(
    spans: Mapping[str, Mapping[int, int]], shortest: int, longest: int, title: str = ""
) -> Figure:
    """Draw a line for each kind of cell: the longest length it solved against its width.

    Coinciding lines are drawn side by side. A width that did not solve even the shortest length
    is drawn below it, at "none".

    Args:
        spans: Longest length solved in steps, by cell name and width; 0 if none was solved.
        shortest: The shortest length tried, above 0.
        longest: The longest length tried.
        title: Title of the figure.
    """
    figure, axes = new_figure(7.2, 4.4)
    none = shortest / 2
    axes.axhline(longest, color="#999999", linewidth=1, linestyle=":", zorder=1)
    axes.annotate(
        "longest tried",
        (1, longest),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 12),
        textcoords="offset points",
        ha="right",
        color="#777777",
        fontsize="small",
    )
    widths = sorted({width for found in spans.values() for width in found})
    for place, (name, found) in enumerate(spans.items()):
        colour, line, mark = _STYLES[place % len(_STYLES)]
        aside = 1.035 ** (place - (len(spans) - 1) / 2)
        axes.plot(
            sorted(found),
            [max(found[width], none) * aside for width in sorted(found)],
            color=colour,
            linestyle=line,
            marker=mark,
            markersize=6,
            linewidth=1.8,
            label=name,
        )
    lengths = [shortest]
    while lengths[-1] < longest:
        lengths.append(2 * lengths[-1])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.set_yticks([none, *lengths], ["none", *map(str, lengths)])
    axes.set_xlim(widths[0] / 1.2, widths[-1] * 1.2)
    axes.set_ylim(none / 1.4, longest * 1.6)
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("units")
    axes.set_ylabel("longest length solved")
    axes.set_title(title, loc="left", fontsize="medium")
    figure.legend(loc="outside right center", frameon=False)
    return figure
