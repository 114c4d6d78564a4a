"""Trajectories of a layer's state, and where they come to rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnets.errors import ShapeError, counted
from seqnets.insight.arguments import array_of, listed
from seqnets.insight.canvas import COLOURS, new_figure, plain, whole_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGINAL = 1e-4
"""How near to 1 the magnitude of an eigenvalue counts as 1: a factor of e takes 10,000 steps."""

KINDS = {
    "stable": {"marker": "o", "facecolor": "black", "edgecolor": "white"},
    "marginal": {"marker": "s", "facecolor": "#7F7F7F", "edgecolor": "white"},
    "unstable": {"marker": "D", "facecolor": "white", "edgecolor": "#D55E00"},
    "slow": {"marker": "X", "facecolor": "#56B4E9", "edgecolor": "white"},
}
"""How the points of each kind are drawn."""

_WHO = "draw_fixed_points"

_ROOM = 0.3
"""Around the trajectories, as a share of their range; points far away would make them small."""


def kinds_of(eigenvalues: np.ndarray, fixed: np.ndarray) -> list[str]:
    """What each point is: "stable", "marginal" or "unstable", or "slow" if the state moves there.

    Args:
        eigenvalues: Those of the step's Jacobian at each point, (K, S).
        fixed: Whether it is a fixed point, (K,).
    """
    largest = np.abs(eigenvalues).max(-1, initial=0)
    unstable, stable = largest > 1 + MARGINAL, largest < 1 - MARGINAL
    kinds = np.where(unstable, "unstable", np.where(stable, "stable", "marginal"))
    return np.where(fixed, kinds, "slow").tolist()


def time_constants(eigenvalues: np.ndarray | complex) -> np.ndarray:
    """The steps in which a direction shrinks or grows by a factor of e: 1 / |ln |λ||."""
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.abs(np.log(np.abs(eigenvalues))))


def slowest_of(eigenvalues: np.ndarray) -> complex | None:
    """The eigenvalue of largest magnitude of those that are below 1; None if there is none."""
    inside = eigenvalues[np.abs(eigenvalues) < 1 - MARGINAL]
    return complex(inside[np.argmax(np.abs(inside))]) if inside.size else None


def draw_fixed_points(
    paths: Sequence[np.ndarray],
    points: np.ndarray,
    eigenvalues: np.ndarray,
    fixed: np.ndarray,
    values: Sequence[np.ndarray] | None = None,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    quantity: str = "value",
) -> Figure:
    """Draw where a layer's state goes, where it could stay, and what happens around there.

    On the left, trajectories and fixed points in the first two principal components of the states;
    on the right, the eigenvalues of the points against the unit circle. Arrays may also be tensors
    or lists.

    Args:
        paths: States of each sequence, in the order in which the layer runs, (T, S) each.
        points: Points where the state is slow or stays, slowest first, (K, S).
        eigenvalues: Those of the step's Jacobian at each point, (K, S).
        fixed: Whether the state stays at a point, rather than being slow there, (K,).
        values: For each sequence, what the colours of its steps tell, (T,): classes as whole
            numbers, negative where there is none, or numbers, NaN where there is none. Without
            them, colours tell the time.
        labels: Names of the classes.
        title: What the input is that stays the same.
        quantity: What the values are, if they are numbers: the name of the scale of colours.

    Raises:
        ConfigError: A number is not finite that has to be, or matplotlib is not installed.
        DtypeError: An argument is no array of numbers.
        ShapeError: An array has another shape than the others ask for, or there are no paths.
    """
    paths = _checked_paths(paths)
    points, eigenvalues, fixed = _checked_points(paths, points, eigenvalues, fixed)
    values = None if values is None else _checked_values(paths, values, labels)
    figure, (left, right) = new_figure(10, 4.6, ncols=2, gridspec_kw={"width_ratios": [1.35, 1]})
    plane, shares = _principal_plane(np.concatenate(paths))
    _draw_paths(figure, left, [plane(path) for path in paths], values, labels, quantity)
    left.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    left.set_ylabel(f"second ({shares[1]:.0%})")
    kinds = np.array(kinds_of(eigenvalues, fixed))
    _draw_circle(right)
    for kind in KINDS:
        of = kinds == kind
        if of.any():
            _draw_points(left, kind, plane(points[of]))
            _draw_eigenvalues(right, kind, eigenvalues[of].reshape(-1))
    _tell_slowest(right, eigenvalues[:1].reshape(-1))
    if not len(points):
        left.scatter([], [], s=0, label="no fixed or slow points")
    left.legend(loc="best", fontsize="small", framealpha=0.85, edgecolor="none")
    if title is not None:
        left.set_title(title, fontsize="small", parse_math=False)
    left.spines[["top", "right"]].set_visible(False)
    return figure


def _checked_paths(paths: Sequence[Any]) -> list[np.ndarray]:
    """States of sequences, (T, S) each, of which one at least has a step."""
    checked: list[np.ndarray] = []
    for number, path in enumerate(listed(_WHO, "paths", paths, "a list of arrays, (T, S)")):
        legend = {"T": None, "S": checked[0].shape[1] if checked else None}
        checked.append(array_of(_WHO, f"paths[{number}]", path, legend, finite=True))
    if not any(path.size for path in checked):
        raise ShapeError(f"{_WHO}: paths are empty, expected at least one step of a sequence.")
    return checked


def _checked_points(
    paths: Sequence[np.ndarray], points: Any, eigenvalues: Any, fixed: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points with their eigenvalues, (K, S) each, and whether they are fixed, (K,)."""
    advice = "S is the width of paths: parts of a state are side by side in both, torch.cat(…, -1)."
    legend = {"K": None, "S": paths[0].shape[1]}
    points = array_of(_WHO, "points", points, legend, advice, finite=True)
    legend["K"] = len(points)
    eigenvalues = array_of(_WHO, "eigenvalues", eigenvalues, legend, finite=True, is_complex=True)
    return points, eigenvalues, array_of(_WHO, "fixed", fixed, {"K": len(points)}).astype(bool)


def _checked_values(
    paths: Sequence[np.ndarray], values: Any, labels: Sequence[str] | None
) -> list[np.ndarray]:
    """What colours tell of each path's steps, (T,) each."""
    given = listed(_WHO, "values", values, "a list of arrays, (T,)")
    if len(given) != len(paths):
        raise ShapeError(
            f"{_WHO}: values has {counted(len(given), 'array')}, expected one for each of "
            f"{counted(len(paths), 'path')}."
        )
    advice = "Each step has its own: np.full(T, value) is the same for all steps of a sequence."
    checked = [
        array_of(_WHO, f"values[{number}]", each, {"T": len(path)}, advice)
        for number, (each, path) in enumerate(zip(given, paths, strict=True))
    ]
    colours = np.concatenate(checked)
    if labels is not None and colours.dtype.kind in "iu" and colours.max(initial=-1) >= len(labels):
        raise ShapeError(
            f"{_WHO}: labels has {counted(len(labels), 'name')}, expected one for each class up "
            f"to {colours.max()}, the largest of values."
        )
    return checked


def _principal_plane(
    states: np.ndarray,
) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """What maps states (N, S) to their first two principal components, (N, 2).

    Beside it the two components' shares of the variance of ``states``.
    """
    centre = states.mean(0)
    _, lengths, directions = np.linalg.svd(states - centre, full_matrices=False)
    shares = lengths**2 / max(float((lengths**2).sum()), 1e-30)
    shares, directions = np.pad(shares, (0, 2))[:2], directions[:2]

    def plane(s: np.ndarray) -> np.ndarray:
        flat = (s - centre) @ directions.T
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))

    return plane, shares


def _draw_paths(
    figure: Figure,
    axis: Any,
    paths: Sequence[np.ndarray],
    values: Sequence[np.ndarray] | None,
    labels: Sequence[str] | None,
    quantity: str,
) -> None:
    """Trajectories as thin lines, with a dot for each step in the colour of its value."""
    from matplotlib.collections import LineCollection

    axis.add_collection(LineCollection(paths, colors="0.75", linewidths=0.6, alpha=0.5, zorder=1))
    dots = np.concatenate(paths)
    by_time = values is None
    if values is None:
        values = [np.arange(len(path), dtype=float) for path in paths]
    colours = np.concatenate(values)
    are_classes = np.issubdtype(colours.dtype, np.integer)
    there = colours >= 0 if are_classes else np.isfinite(colours)
    axis.scatter(*dots[~there].T, s=4, color="0.8", lw=0, zorder=2)
    look = {"s": 9 if there.mean() > 0.2 else 20, "lw": 0, "alpha": 0.8, "zorder": 2}
    if are_classes:
        for number in np.unique(colours[there]):
            name = plain(labels[number]) if labels else str(number)
            colour = COLOURS[number % len(COLOURS)]
            axis.scatter(*dots[colours == number].T, color=colour, label=name, **look)
    else:
        shown = axis.scatter(*dots[there].T, c=colours[there], cmap="viridis", **look)
        if not by_time or len(dots) > len(paths):  # else each path has one step
            told = "step" if by_time else plain(quantity)
            bar = figure.colorbar(shown, ax=axis, pad=0.01, aspect=30, label=told)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0)
            if by_time:
                whole_steps(bar.ax.yaxis)
    low, high = dots.min(0), dots.max(0)
    room = _ROOM * np.maximum(high - low, 1e-6)
    axis.set(xlim=(low[0] - room[0], high[0] + room[0]), ylim=(low[1] - room[1], high[1] + room[1]))


def _draw_points(axis: Any, kind: str, at: np.ndarray) -> None:
    """Points of one kind at these places, (K, 2); the legend counts those beyond the axes."""
    label = f"{len(at)} {'slow, not fixed' if kind == 'slow' else kind}"
    outside = int((~_within(axis, at)).sum())
    if outside:
        label += ", outside" if outside == len(at) else f", {outside} outside"
    axis.scatter(*at.T, s=62, lw=1.2, zorder=4, label=label, **KINDS[kind])


def _draw_eigenvalues(axis: Any, kind: str, eigenvalues: np.ndarray) -> None:
    """The eigenvalues of points of one kind, in their colour."""
    colour = KINDS[kind]["edgecolor" if kind == "unstable" else "facecolor"]
    places = eigenvalues.real, eigenvalues.imag
    axis.scatter(*places, s=13, color=colour, lw=0, alpha=0.7, zorder=3)


def _within(axis: Any, at: np.ndarray) -> np.ndarray:
    """Which places (K, 2) lie within the axes, (K,)."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    return (left < at[:, 0]) & (at[:, 0] < right) & (bottom < at[:, 1]) & (at[:, 1] < top)


def _draw_circle(axis: Any) -> None:
    """The unit circle, and that of directions which are forgotten in ten steps."""
    turn = np.linspace(0, 2 * np.pi, 361)
    looks = {1.0: {"color": "0.4", "lw": 1}, np.exp(-0.1): {"color": "0.75", "lw": 0.8, "ls": "--"}}
    for radius, look in looks.items():
        axis.plot(radius * np.cos(turn), radius * np.sin(turn), zorder=1, **look)
    axis.text(0, -np.exp(-0.1) + 0.04, "10 steps", color="0.55", fontsize="x-small", ha="center")
    axis.axhline(0, color="0.9", lw=0.8, zorder=0)
    axis.axvline(0, color="0.9", lw=0.8, zorder=0)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set(xlabel="eigenvalues, real part", ylabel="imaginary part")
    axis.spines[["top", "right"]].set_visible(False)


def _tell_slowest(axis: Any, eigenvalues: np.ndarray) -> None:
    """Tell how long what is forgotten most slowly is remembered around a point, and if it turns."""
    slowest = slowest_of(eigenvalues)
    if slowest is not None:
        told = f"slowest to be forgotten: {counted(round(float(time_constants(slowest))), 'step')}"
        if abs(slowest.imag) > 1e-6:
            told += f", turns once in {2 * np.pi / abs(np.angle(slowest)):.3g}"
        axis.set_title(told, fontsize="small")
