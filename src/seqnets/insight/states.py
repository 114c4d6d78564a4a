"""What the units of a layer hold over time."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnets.errors import DtypeError, ShapeError, counted
from seqnets.insight.arguments import array_of, listed
from seqnets.insight.canvas import new_figure, plain, tilt, whole_steps, width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHO = "draw_states"

_WIDTH = 10.0
"""Width of the figure in inches."""

_LETTERS, _WORDS = 110, 44
"""Maximum number of single letters, and of longer tokens, that are written beside each other."""

_CURVES = 6
"""Maximum number of features whose curves can be told apart; more are a heat map."""

_NAMES = 96
"""Maximum letters of the curves' names that have room in one row."""

_BRIGHT = 0.97
"""The share of numbers within the scale of colours: a unit that counts would make others pale."""

_FAINT = 0.1
"""Numbers up to this could not be seen on a scale from 0 to 1: an adaptive threshold's, say."""

_CURVE, _ROW = 0.9, 0.035
"""Height of curves, and of a unit, in inches."""

_ROWS = 96
"""Maximum number of features with a row each; of more, such as pixels, neighbours share one."""


def draw_states(
    parts: Mapping[str, np.ndarray],
    x: Sequence[str] | np.ndarray | None = None,
    features: Sequence[str] | None = None,
    units: int = 48,
) -> Figure:
    """Draw what each unit of a layer holds at each step: a heat map for each part.

    Numbers from 0 to 1, as gates have them, are drawn from white to dark, and where all are small
    the largest is the darkest; others are red if positive and blue if negative. Units are the same
    rows in all parts of one width: those that vary most, with those that behave alike beside each
    other. Arrays may also be tensors or lists.

    Args:
        parts: What the units hold, by its name, such as "state h" and "gate f", each (T, H).
        x: The input: the text of each step's token, written below, or features, (T, I), drawn
            above. If the layer has another number of steps than the input, its own are stretched.
        features: Names of the features.
        units: Maximum number of units to draw.

    Raises:
        ConfigError: ``units`` is not a whole number from 1, or matplotlib is not installed.
        DtypeError: ``parts`` is not a mapping, or an array holds no numbers.
        ShapeError: A shape is another one, or something has no steps.
    """
    from seqnets.checks import check_count  # late: it needs torch

    check_count(_WHO, units=units)
    parts = _checked_parts(parts)
    texts, x = _checked_input(x)
    curves = x if x is not None and x.shape[1] <= _CURVES else None
    if curves is not None and features is not None and len(features) != curves.shape[1]:
        raise ShapeError(
            f"{_WHO}: features has {counted(len(features), 'name')}, expected I = "
            f"{curves.shape[1]}: one for each feature of x."
        )
    if texts is not None:
        steps = len(texts)
        texts = texts[: _LETTERS if _are_letters(texts) else _WORDS]
        share = len(texts) / max(1, steps)
        parts = {name: part[: round(share * len(part))] for name, part in parts.items()}
    read = texts if x is None else x
    T = len(next(iter(parts.values())) if read is None else read)
    together = list(parts.values())
    rows = {width: _rows(together, width, units) for width in {p.shape[1] for p in together}}
    shown = {name: part[:, rows[part.shape[1]]] for name, part in parts.items()}
    if x is not None and curves is None:
        shown = _in_rows(x) | shown
    heights = [max(0.5, _ROW * part.shape[1]) for part in shown.values()]
    heights = [_CURVE] * (curves is not None) + heights
    figure, axes = new_figure(
        _WIDTH, sum(heights) + 0.22 * len(heights) + 0.7, nrows=len(heights), sharex=True,
        squeeze=False, gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    axes = axes[:, 0]
    if curves is not None:
        _draw_curves(axes[0], curves, features)
    for axis, (name, part) in zip(axes[-len(shown) :], shown.items(), strict=True):
        _draw_part(axis, part, T)
        all_units = parts[name].shape[1] if name in parts else part.shape[1]
        few = f", {part.shape[1]} of {all_units:,} units" if part.shape[1] < all_units else ""
        axis.set_title(f"{name}{few}", loc="left", fontsize="small", pad=3)
    _write_steps(axes[-1], texts, T)
    return figure


def _checked_parts(parts: Any) -> dict[str, np.ndarray]:
    """What units hold, by its name, (T, H) each."""
    if not isinstance(parts, Mapping):
        raise DtypeError(
            f"{_WHO}: parts is {type(parts).__name__}, expected a mapping from names to arrays "
            f"(T, H).\n  For example, {{'state h': h}}."
        )
    advice = "A row of a batch is one sequence: h[0]."
    legend = {"T": None, "H": None}
    checked = {k: array_of(_WHO, f"part {k!r}", v, legend, advice) for k, v in parts.items()}
    for name, part in checked.items():
        if not part.size:
            raise ShapeError(
                f"{_WHO}: part {name!r} has shape {part.shape}, expected at least one step and "
                "one unit."
            )
    if not checked:
        raise ShapeError(f"{_WHO}: parts are empty, expected at least one.")
    return checked


def _checked_input(x: Any) -> tuple[list[str] | None, np.ndarray | None]:
    """The input as texts, or as features, (T, I)."""
    if x is None:
        return None, None
    texts = listed(_WHO, "x", x, "texts or an array (T, I)")
    if not texts:
        raise ShapeError(f"{_WHO}: x is empty, expected at least one step.")
    is_table = getattr(x, "ndim", 1) > 1  # one of pandas goes through the names of its columns
    if not is_table and all(isinstance(text, str) for text in texts):
        return texts, None
    advice = "Tokens are given as texts: list(map(str, x.tolist()))."
    return None, array_of(_WHO, "x", x, {"T": None, "I": None}, advice)


def _are_letters(texts: Sequence[str]) -> bool:
    return max(map(len, texts), default=0) <= 1


def _rows(parts: Sequence[np.ndarray], width: int, most: int) -> np.ndarray:
    """The units to draw of parts with so many, from top to bottom.

    Their order is that of the second eigenvector of the Laplacian of their likeness (spectral
    seriation: Atkins et al., 1998, "A Spectral Algorithm for Seriation and the Consecutive Ones
    Problem").
    """
    alike = [
        np.nan_to_num(part, nan=0, posinf=0, neginf=0)
        for part in parts
        if part.shape[1] == width and len(part)
    ]
    if not alike:
        return np.arange(min(width, most))
    spread = [part.std(0) for part in alike]
    varying = np.sum([each / max(each.mean(), 1e-12) for each in spread], axis=0)
    chosen = np.sort(np.argsort(-varying, kind="stable")[:most])
    curves = np.concatenate(
        [
            (part[:, chosen] - part[:, chosen].mean(0)) / np.maximum(deviation[chosen], 1e-12)
            for part, deviation in zip(alike, spread, strict=True)
        ]
    )
    likeness = 1 + curves.T @ curves / len(curves)
    laplacian = np.diag(likeness.sum(0)) - likeness
    order = np.argsort(np.linalg.eigh(laplacian)[1][:, min(1, len(chosen) - 1)], kind="stable")
    if chosen[order[0]] > chosen[order[-1]]:  # an eigenvector has no sign
        order = order[::-1]
    return chosen[order]


def _in_rows(x: np.ndarray) -> dict[str, np.ndarray]:
    """An input for a heat map, (T, rows), by its title: means of neighbours if they are many."""
    I = x.shape[1]
    if I <= _ROWS:
        return {"input": x}
    first = np.arange(_ROWS) * I // _ROWS
    means = np.add.reduceat(x, first, axis=1) / np.diff(first, append=I)
    return {f"input, means of {I:,} features in {_ROWS} rows": means}


def _draw_part(axis: Any, part: np.ndarray, T: int) -> None:
    """A heat map of a part, (T', units), over T steps, with its scale of colours."""
    known = part[np.isfinite(part)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if low >= 0 and high <= 1:
        options: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": 1}
        if 0 < high <= _FAINT:
            options["vmax"] = high
    else:
        limit = max(float(np.quantile(np.abs(known), _BRIGHT)), 1e-6)
        options = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    image = axis.imshow(
        part.T, aspect="auto", interpolation="none", extent=(-0.5, T - 0.5, part.shape[1], 0),
        **options,
    )  # fmt: skip
    axis.set_yticks([])
    axis.spines[:].set_color("0.8")
    axis.tick_params(length=0)
    bar = axis.figure.colorbar(image, ax=axis, pad=0.008, aspect=9, fraction=0.05)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize="x-small")
    bar.ax.locator_params(nbins=3)


def _draw_curves(axis: Any, x: np.ndarray, names: Sequence[str] | None) -> None:
    labels = [] if names is None else [plain(name) for name in names]
    for number, curve in enumerate(x.T):
        label = labels[number] if labels else None
        axis.plot(curve, linewidth=0.9, label=label, marker="." if len(x) < 40 else None)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize="x-small")
    axis.set_title("input", loc="left", fontsize="small", pad=3)
    if labels:
        columns = len(labels) if sum(map(width_of, labels)) <= _NAMES else 3
        axis.legend(
            loc="lower right", bbox_to_anchor=(1, 0.98), ncols=columns, frameon=False,
            fontsize="x-small", borderaxespad=0,
        )  # fmt: skip


def _write_steps(axis: Any, texts: Sequence[str] | None, T: int) -> None:
    """Label the time axis with tokens, or count steps."""
    axis.set_xlim(-0.5, T - 0.5)
    if texts is None:
        axis.set_xlabel("step")
        axis.tick_params(length=3)
        whole_steps(axis.xaxis)
        return
    shown = [_printable(text) for text in texts]
    letters = _are_letters(shown)
    axis.set_xticks(
        range(T), shown, family="monospace", rotation=0 if letters else tilt(shown, _WIDTH / T),
        fontsize=8.5 if letters else 8, parse_math=False,
    )  # fmt: skip
    axis.tick_params(axis="x", length=0, pad=2)


def _printable(text: str) -> str:
    """A token with visible line ends, without what cannot be printed, and cut if long."""
    shown = text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
    signs = (sign for sign in shown if sign.isprintable() and not unicodedata.combining(sign))
    shown = "".join(signs)
    return shown if len(shown) <= 16 else f"{shown[:15]}…"
