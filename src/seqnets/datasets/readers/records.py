"""What every reader of whole sequences gives: records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from seqnets.datasets.base import PARTS, Part
from seqnets.datasets.readers.audio import LogMel
from seqnets.datasets.readers.tables import Row, is_missing, number, shown
from seqnets.errors import DataError

LABEL, SPLIT = "label", "split"
"""The columns of a class, and of the part that a sequence is for."""


@dataclass
class Record:
    """One sequence as a file has it.

    Attributes:
        where: Where it stands: "FILE, line 12".
        steps: Features (T, I), NaN where a value is missing, or text; T is at least 1. Numbers are
            float64 until they are standardised; float32 where the file has no more.
        target: What is to be told of it; None if that is not known.
        split: The part that it is for, where the file says so.
        id: What the file calls it, or the file's own name in a folder; None where it has none.
    """

    where: str
    steps: np.ndarray | str
    target: Any = None
    split: Part | None = None
    id: Any = None


@dataclass(frozen=True)
class Source:
    """All sequences of a file or folder.

    Attributes:
        records: In the order of the file, or of the names of files.
        facts: What other files for the same model must agree in, such as the names of features.
    """

    records: list[Record]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What a reader is to read beside the steps.

    Attributes:
        columns: The targets' columns, which are no features.
        target: Reads a row's target, given where the row stands; None where targets are not known.
        new: Whether the file is to be predicted: a target may be missing or no such target.
        missing: Whether a feature may be missing.
        audio: Turns sound into features.
    """

    columns: tuple[str, ...]
    target: Callable[[str, Row], Any] | None = None
    new: bool = False
    missing: bool = False
    audio: LogMel = field(default_factory=LogMel)

    def target_of(self, where: str, row: Row) -> Any:
        """Return a row's target; None where it is not known."""
        if self.target is None:
            return None
        try:
            return self.target(where, row)
        except DataError:
            if self.new:
                return None
            raise

    def value(self, where: str, column: str, cell: Any) -> float:
        """Return a feature; NaN where it is missing and may be.

        Raises:
            DataError: It is no finite number, or missing and may not be.
        """
        if not is_missing(cell):
            return number(where, column, cell)
        if self.missing:
            return math.nan
        raise DataError(
            f"{where}: column {column} is {shown(cell)}, expected a finite float32 number.\n"
            "  Fill it in, or say how: dataset.missing=forward or dataset.missing=zero."
        )


class Named(Protocol):
    """A sequence that its file may have a name for."""

    id: Any


def ids_of(sequences: Sequence[Named]) -> list[Any] | None:
    """Return what the file calls sequences; None where it has no names for them."""
    ids = [sequence.id for sequence in sequences]
    return None if all(name is None for name in ids) else ids


def split_of(where: str, row: Row) -> Part | None:
    """Return the part that a row says it is for; None where it says nothing.

    Raises:
        DataError: It is none of the parts.
    """
    split = row.get(SPLIT)
    if SPLIT in row and split not in PARTS:
        raise DataError(f"{where}: split is {shown(split)}, expected {', '.join(PARTS)}.")
    return split


def part_of(where: str, split: Part | None, own: Part, paths: Iterable[Part]) -> Part:
    """Return the part that a sequence is for.

    Args:
        where: Where it stands.
        split: What its file says.
        own: The part that its file is for.
        paths: The parts that have files of their own.

    Raises:
        DataError: The file of one part says that it is for another, or the training file that it is
            for a part with a file of its own.
    """
    part = split or own
    if part != own and (own != "train" or part in paths):
        expected = own if own != "train" else "train: this part has a file of its own"
        raise DataError(f"{where}: split is {part!r}, expected {expected}.")
    return part


class Names:
    """The ids of sequences, each of which may come once."""

    def __init__(self) -> None:
        self._seen: dict[Any, str] = {}

    def add(self, where: str, name: Any) -> None:
        """Take note of an id.

        Raises:
            DataError: It is missing or no id, or came before.
        """
        if not isinstance(name, (str, int)) or not str(name).strip():
            raise DataError(f"{where}: the id is {shown(name)}, expected text or a whole number.")
        if name in self._seen:
            raise DataError(
                f"{where}: sequence {shown(name)} comes again, it came at {self._seen[name]}.\n"
                "  Rows of one sequence follow each other, and each sequence has an id of its own."
            )
        self._seen[name] = where
