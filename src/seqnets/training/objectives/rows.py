"""Entries of the rows that predictions are written as."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.datasets.readers.cells import few
from seqnets.errors import DataError
from seqnets.training.objectives.base import Row
from seqnets.typing import Batch, Known


def entries(rows: Sequence[Row], key: str) -> list[Any]:
    """One entry of each row, for :meth:`Objective.read`.

    Raises:
        DataError: A row has no entry under this key.
    """
    for number, row in enumerate(rows, start=1):
        if row.get(key) is None:
            raise DataError(
                f"Row {number}: {key!r} is {'null' if key in row else 'missing'}, expected a value."
                f"\n  The keys are {', '.join(row) or 'none'}."
            )
    return [row[key] for row in rows]


def written_texts(rows: Sequence[Row], key: str) -> list[str]:
    """The text of each row under a key.

    Raises:
        DataError: A row has none.
    """
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(key), str):
            raise DataError(
                f"Row {number}: {key} is {row.get(key)!r}, expected a text to be scored."
            )
    return [row[key] for row in rows]


def class_numbers(rows: Sequence[Row], key: str, known: Known) -> Tensor:
    """The class that each row names under a key, by number, (N,) int64.

    Raises:
        DataError: A row names no class, or one that the dataset does not have.
    """
    names = class_names(known)
    numbers = {name: number for number, name in enumerate(names)}
    found = []
    for row, entry in enumerate(entries(rows, key), start=1):
        number = None if isinstance(entry, (list, dict, bool)) else numbers.get(entry)
        if number is None:
            raise DataError(f"Row {row}: got {key} {entry!r}, expected one of {few(names)}.")
        found.append(number)
    return torch.tensor(found, dtype=torch.int64)


def class_names(known: Known) -> list[Any]:
    """The names of classes in rows: their labels, or their numbers if they have none."""
    return known.get("labels") or list(range(known["sizes"]["num_classes"]))


def class_texts(known: Known) -> list[str]:
    """The names of classes as text."""
    return list(map(str, class_names(known)))


def candidates(
    tokens: Tensor, scores: Tensor, decode: Callable[[list[int]], str]
) -> list[list[Row]]:
    """The text and the score of each candidate that a search found, by row.

    Args:
        tokens: Their ids, (B, N, U).
        scores: Their scores, (B, N); minus infinity where there is none.
        decode: The text of some ids.
    """
    return [
        [
            {"prediction": decode(ids), "score": score}
            for ids, score in zip(*found, strict=True)
            if score != -math.inf
        ]
        for found in zip(tokens.tolist(), scores.tolist(), strict=True)
    ]


def lengths_of(batch: Batch) -> list[int]:
    """The valid steps of each row of a batch."""
    B, T = batch.x.shape[:2]
    return [T] * B if batch.lengths is None else batch.lengths.tolist()
