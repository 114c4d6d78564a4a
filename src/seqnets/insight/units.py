"""A text as single units of a layer see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqnets.errors import DtypeError, ShapeError, counted
from seqnets.insight.arguments import array_of, listed
from seqnets.insight.page import Line, draw_page, laid_out

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHO = "draw_units"


def draw_units(
    tokens: Sequence[str], part: np.ndarray, units: int = 6, columns: int = 96, lines: int = 8
) -> Figure:
    """Write a text once for each of a few units, on the colours of what the unit holds.

    The units are those that vary most and change least from step to step, such as one that tells
    the inside of quotes from the outside, or the beginning of a line from its end. Red is positive
    and blue negative.

    Args:
        tokens: The T tokens of the text.
        part: A part of a layer's state, (T, H): an array, a tensor or lists.
        units: Maximum number of units.
        columns: Letters per line.
        lines: Maximum number of lines of the text.

    Raises:
        ConfigError: A maximum is not a whole number from 1, or matplotlib is not installed.
        DtypeError: A token is not text, or ``part`` holds no numbers.
        ShapeError: ``part`` is not (T, H), or there are no steps or no units.

    References:
        Karpathy et al., 2015, "Visualizing and Understanding Recurrent Networks",
        arXiv:1506.02078.
    """
    from seqnets.checks import check_count  # late: it needs torch

    check_count(_WHO, units=units, columns=columns, lines=lines)
    tokens = listed(_WHO, "tokens", tokens, "a list of texts")
    wrong = [token for token in tokens if not isinstance(token, str)]
    if wrong:
        raise DtypeError(f"{_WHO}: a token is {wrong[0]!r}, expected text.")
    advice = f"There are {counted(len(tokens), 'token')}: a unit holds one number at each."
    part = array_of(_WHO, "part", part, {"T": len(tokens), "H": None}, advice)
    if not part.size:
        raise ShapeError(
            f"{_WHO}: part has shape {part.shape}, expected at least one step and one unit."
        )
    page: list[Line] = []
    for unit in _lasting(part)[:units].tolist():
        heading: Line = [(0, f"unit {unit}", np.nan)]
        page += [heading, *laid_out([(tokens, part[:, unit].tolist())], columns, lines), []]
    page = page[:-1]
    known = [abs(number) for line in page for *_, number in line if np.isfinite(number)]
    limit = max(float(np.quantile(known, 0.97)) if known else 0.0, 1e-3)
    return draw_page(page, columns, "RdBu_r", -limit, limit, "what the unit holds", "both")


def _lasting(part: np.ndarray) -> np.ndarray:
    """The units from those that hold something for long to those that flicker."""
    curves = np.nan_to_num(part, nan=0, posinf=0, neginf=0)
    variance = curves.var(0)
    flicker = np.square(np.diff(curves, axis=0)).mean(0) if len(curves) > 1 else 0 * variance
    lasting = np.sqrt(variance) * (1 - flicker / np.maximum(2 * variance, 1e-12))
    return np.argsort(-lasting, kind="stable")
