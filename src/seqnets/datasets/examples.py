"""Sequences and targets as short text, for ``seqnets inspect``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from seqnets.datasets.scaling import Scaling
from seqnets.datasets.text.vocabulary import Vocabulary
from seqnets.typing import IGNORE

TOKENS, STEPS, FEATURES = 60, 3, 6
"""What is shown of a sequence at most."""

COLUMNS, ROWS = 60, 20
"""What is shown at most of a picture that is read by columns."""

SHADES = " .:-=+*#%@"
"""From dark to bright."""


def show_steps(
    x: Tensor, vocabulary: Vocabulary | None = None, scaling: Scaling | None = None
) -> str:
    """The beginning of a sequence as text.

    Args:
        x: Tokens, (T,) int64, or features, (T, ...).
        vocabulary: The vocabulary of the tokens; ids are shown if omitted.
        scaling: How features were standardised, if they were; they are shown in original units.
    """
    if x.is_floating_point():
        features = x[:STEPS].flatten(1)
        more = " ..." if features.shape[1] > FEATURES else ""
        rows = features.tolist() if scaling is None else map(scaling.shown, features)
        steps = [" ".join(f"{v:.4g}" for v in row[:FEATURES]) + more for row in rows]
        return " | ".join(steps + ["..."] * (len(x) > STEPS))
    numbers = x[:TOKENS].tolist()
    ends = " ..." if len(x) > TOKENS else ""
    return (vocabulary.decode(numbers) if vocabulary else " ".join(map(str, numbers))) + ends


def show_features(names: Sequence[str], x: Tensor, scaling: Scaling | None) -> list[dict[str, str]]:
    """A table row for each feature: its name, mean and standard deviation.

    Args:
        names: Names of the features.
        x: All steps of the training part, (steps, I); NaN is ignored.
        scaling: How ``x`` was standardised, if it was; means and deviations are those of before.
    """
    known = scaling or Scaling.of(x)
    constant = ((x == x.nan_to_num(nan=-math.inf).amax(0)) | x.isnan()).all(0)
    deviation = known.deviation.masked_fill(constant, 0)  # a constant is divided by 1
    mean = known.mean.masked_fill(known.mean.abs() <= 1e-12 * deviation, 0)  # what rounding leaves
    columns = zip(names, mean.tolist(), deviation.tolist(), strict=True)
    return [{"": name, "mean": f"{mean:.4g}", "deviation": f"{d:.4g}"} for name, mean, d in columns]


def show_picture(picture: np.ndarray, letters: int = 1) -> str:
    """An image drawn in characters.

    Args:
        picture: Brightness in 0..1, (height, width).
        letters: Characters per pixel; a character is about twice as high as wide.
    """
    shades = (picture * (len(SHADES) - 1)).round().astype(int).tolist()
    return "\n".join("".join(letters * SHADES[shade] for shade in row) for row in shades)


def show_columns(columns: np.ndarray) -> str:
    """The left of a picture drawn in characters, dark on light as light on dark.

    Args:
        columns: Brightness in 0..1, (T, height).
    """
    side = min(-(-columns.shape[1] // ROWS), len(columns))  # of squares, each a character
    T, height = (size // side for size in columns[: COLUMNS * side].shape)
    squares = columns[: T * side, : height * side].reshape(T, side, height, side)
    picture = squares.mean((1, 3)).clip(0, 1).T
    return show_picture(1 - picture if np.median(columns) > 0.5 else picture)


def show_target(y: Tensor, labels: Sequence[str] | None = None, joiner: str = " ") -> str:
    """A target as text: one class or one per step, one row of values or one per step.

    Args:
        y: Classes, () or (T,) int64, with ``IGNORE`` shown as a dot; or values, (K,) or (T, ...).
        labels: The class names; class numbers are shown if omitted.
        joiner: The text between two classes.
    """
    if y.is_floating_point():
        return show_steps(y) if y.dim() > 1 else " ".join(f"{v:.4g}" for v in y.tolist())
    numbers = y.reshape(-1)[:TOKENS].tolist()
    ends = " ..." if y.numel() > TOKENS else ""
    names = ["·" if n == IGNORE else labels[n] if labels else str(n) for n in numbers]
    return joiner.join(names) + ends
