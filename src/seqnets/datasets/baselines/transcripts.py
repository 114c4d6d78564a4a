"""Baselines of transcription: a constant transcript, and the nearest mean picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.scores.edits import edit_rate
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.typing import IGNORE

_WIDTH = 8
"""Columns to which a piece of a picture is stretched or shrunk."""


def repeated_label(train: Tensor, test: Tensor) -> dict[str, float]:
    """The test errors per label of the commonest label, as often as is best in training.

    Args:
        train: Labels of the training transcripts, (N, U), padded with ``IGNORE``.
        test: Labels of the test transcripts, in the same form.
    """
    label = train[train != IGNORE].bincount().argmax()
    times = torch.arange(train.shape[1] + 1)
    best = times[_edits(train, label, times).sum(0).argmin()]
    labels = (test != IGNORE).sum()
    if not labels:
        return {}
    return {"commonest label repeated": float(_edits(test, label, best[None]).sum() / labels)}


def _edits(y: Tensor, label: Tensor, times: Tensor) -> Tensor:
    """Edits from a label repeated so many times, (K,), to each transcript, (N, K)."""
    lengths, right = (y != IGNORE).sum(1)[:, None], (y == label).sum(1)[:, None]
    return torch.maximum(lengths, times) - torch.minimum(right, times)


def nearest_pictures(train: Sequences, test: Sequences) -> dict[str, float]:
    """The test errors per label of pictures cut into equal pieces, read one by one.

    A picture is cut from its first column with ink to its last: a training picture into as many
    pieces as it has labels, a test picture into pieces of the training pictures' mean width. A
    piece is moved to the top, and read as the label with the nearest mean of training pieces.

    Args:
        train: Pictures by columns, with ink above 0, and their transcripts.
        test: Pictures of the same height.
    """
    inked = [(_inked(picture), row[row != IGNORE]) for picture, row in _pictures(train)]
    inked = [(picture, row) for picture, row in inked if len(row) and len(picture)]
    labels = np.concatenate([row for _, row in inked])
    pieces = np.concatenate([_cut(picture, len(row)) for picture, row in inked])
    width = sum(len(picture) for picture, _ in inked) / len(labels)
    known = np.unique(labels)
    means = np.stack([pieces[labels == label].mean(0) for label in known])

    written, right = [], []
    for picture, row in _pictures(test):
        ink = _inked(picture)
        asked = _cut(ink, max(1, round(len(ink) / width))) if len(ink) else pieces[:0]
        distances = np.square(asked[:, None] - means).sum((2, 3))
        written.append(known[distances.argmin(1)].tolist())
        right.append(row[row != IGNORE].tolist())
    return {"nearest mean picture": edit_rate(written, right)}


def _pictures(sequences: Sequences) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each picture, (T, height), with its padded labels."""
    pictures = sequences.x.split(sequences.lengths.tolist())
    return [(x.numpy(), y.numpy()) for x, y in zip(pictures, sequences.y, strict=True)]


def _inked(picture: np.ndarray) -> np.ndarray:
    """The columns from the first with ink to the last."""
    columns = np.flatnonzero(picture.any(1))
    return picture[columns[0] : columns[-1] + 1] if len(columns) else picture[:0]


def _cut(picture: np.ndarray, count: int) -> np.ndarray:
    """Equal pieces of a picture, (count, _WIDTH, height), moved to the top."""
    columns = (np.arange(count * _WIDTH) + 0.5) * len(picture) / (count * _WIDTH)
    pieces = picture[columns.astype(int)].reshape(count, _WIDTH, -1)
    tops = pieces.any(1).argmax(1)
    rows = (np.arange(pieces.shape[2]) + tops[:, None]) % pieces.shape[2]
    return np.take_along_axis(pieces, rows[:, None], axis=2)
