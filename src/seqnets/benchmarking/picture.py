"""Plots of speed over time steps, batch size and units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.results import Measured
from seqnets.insight import new_figure
from seqnets.optional import optional

_AXES = {"T": "time steps T", "B": "batch B", "H": "units H"}

_STYLES = {
    "floor": ("#000000", "--", ""),
    "auto": ("#D55E00", "-", "o"),
    "torch.nn": ("#0072B2", "-", "s"),
    "ONNX Runtime": ("#56B4E9", "-", "D"),
    "Flax": ("#CC79A7", "-", "P"),
    "loop": ("#7F7F7F", "-", "v"),
    "c": ("#009E73", "-", "X"),
    "triton": ("#009E73", "-", "X"),
    "scan": ("#999933", "--", ">"),
    "native": ("#E69F00", "-.", "<"),
    "compiled loop": ("#7F7F7F", ":", "^"),
}
"""Colour, line style and marker of each row; colours by Okabe and Ito, for the colour-blind."""

_OTHERS = (("#882255", ":", "p"), ("#332288", "-.", "d"))

_LABELS = {"auto": "seqnets", "floor": "matrix products by torch alone", "loop": "Python loop"}


def check_plotting() -> None:
    """Raise ConfigError unless matplotlib is installed."""
    with optional("The plot, which plot=false omits, is drawn by matplotlib", "plot"):
        import matplotlib  # noqa: F401 - only checks that it is installed


def sweeps(measured: Sequence[Measured]) -> dict[str, dict[str, list[Measured]]]:
    """Return, by title and axis, the longest series of cases that differ only in T, B or H."""
    rows: dict[str, dict[str, list[Measured]]] = {}
    for axis in _AXES:
        groups: dict[tuple[Any, ...], list[Measured]] = defaultdict(list)
        for entry in measured:
            groups[_fixed(entry.case, axis)].append(entry)
        for group in groups.values():
            found = rows.setdefault(group[0].case.title, {})
            if len(group) > max(1, len(found.get(axis, ()))):
                found[axis] = sorted(group, key=lambda entry: getattr(entry.case, axis))
    return {key: found for key, found in rows.items() if found}


def plot(measured: Sequence[Measured], path: Path) -> bool:
    """Plot speed over T, B and H, with a row of panels for each title.

    Args:
        measured: The measurements. Only cases that differ from another one in T, B or H alone are
            plotted.
        path: The image file to write.

    Returns:
        Whether there was anything to plot.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    rows = sweeps(measured)
    if not rows:
        return False
    axes = [axis for axis in _AXES if any(axis in found for found in rows.values())]
    size = 2 + 3 * len(axes), 0.9 + 3.3 * len(rows)
    figure, grid = new_figure(*size, nrows=len(rows), ncols=len(axes), squeeze=False, sharey="row")
    names = list(dict.fromkeys(row.name for entry in measured for row in entry.rows))
    styles = _styles(names)
    lines: dict[str, Any] = {}
    for panels, (title, found) in zip(grid, rows.items(), strict=True):
        for panel, axis in zip(panels, axes, strict=True):
            if axis in found:
                lines |= _draw(panel, axis, found[axis], styles)
            else:
                panel.set_visible(False)
        first = next(p for p, axis in zip(panels, axes, strict=True) if axis in found)
        first.set_ylabel(f"{title}\nsteps per second (B·T / s)")
        first.tick_params(labelleft=True)
    drawn = [name for name in styles if name in lines]
    figure.legend(
        [lines[name] for name in drawn],
        [_LABELS.get(name, name) for name in drawn],
        loc="outside lower center",
        ncols=min(len(drawn), 2 * len(axes)),
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return True


def _styles(names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Colour, line style and marker of each row, with those of ``_STYLES`` first."""
    spare = iter(_OTHERS * len(names))
    known = {name: style for name, style in _STYLES.items() if name in names}
    return known | {name: next(spare) for name in names if name not in known}


def _draw(
    panel: Any, axis: str, group: Sequence[Measured], styles: dict[str, tuple[str, str, str]]
) -> dict[str, Any]:
    """Plot a series of cases into a panel, and return the line of each row by name."""
    lines = {}
    for name, (colour, line, marker) in styles.items():
        rows = [(getattr(entry.case, axis), entry.row(name)) for entry in group]
        points = [(size, row.steps_per_s) for size, row in rows if row is not None]
        if points:
            (lines[name],) = panel.plot(
                *zip(*points, strict=True),
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=5,
                linewidth=2.4 if name == "auto" else 1.5,
                zorder=3 if name == "auto" else 2,
            )
    sizes = [getattr(entry.case, axis) for entry in group]
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.minorticks_off()
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    rest = [f"{key} = {getattr(group[0].case, key)}" for key in "BTH" if key != axis]
    panel.set_title(", ".join(rest), fontsize="medium")
    panel.set_xlabel(_AXES[axis])
    return lines


def _fixed(case: Case, axis: str) -> tuple[Any, ...]:
    """What is constant along an axis; the input size may grow with the units."""
    inputs = "H" if case.I == case.H else case.I
    sizes = [getattr(case, key) for key in "BTH" if key != axis]
    return case.title, inputs, *sizes
