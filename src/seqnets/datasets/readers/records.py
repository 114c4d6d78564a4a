"""Records, the common result of all readers of whole sequences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.readers.audio import LogMel
from seqnets.datasets.readers.cells import Row, is_missing, named, need, number_of, shown
from seqnets.datasets.readers.clocks import Clock
from seqnets.errors import ConfigError, DataError

TIME = "time"
"""Where facts have what the times of steps are."""

LABEL, SPLIT = "label", "split"
"""Column names of the class and of the part of a sequence."""

SEQUENCE, FILE, ID = "sequence", "file", "id"
"""Column names of the sequence that a step is of, of the file that one is in, and of its name."""


@dataclass
class Record:
    """One sequence as stored in a file.

    Attributes:
        where: Its location: "FILE, line 12".
        steps: Features (T, I), NaN where a value is missing, or text; T is at least 1. Numbers are
            float64 until they are standardised, or float32 if stored in no higher precision.
        target: Its target; None if unknown.
        split: The part it belongs to, if the file says so.
        id: Its identifier, or its file's name in a folder or table; None if it has none.
        group: The group it belongs to, if it was asked for.
        weight: How much it counts in the loss, if it was asked for.
    """

    where: str
    steps: np.ndarray | str
    target: Any = None
    split: Part | None = None
    id: Any = None
    group: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Source:
    """All sequences of a file or folder.

    Attributes:
        records: In file order, or sorted by file name.
        facts: Properties that all files of a model must share, such as feature names.
        left_out: The columns to leave out that are there, where rows are steps.
    """

    records: list[Record]
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    def in_order(self, expected: Any) -> Source:
        """The source with its features as ``expected``, if those are the same names."""
        features = self.facts.get("features")
        if not isinstance(features, list) or not isinstance(expected, list):
            return self
        if (columns := moved(features, expected)) is None:
            return self
        records = [replace(r, steps=np.asarray(r.steps)[:, columns]) for r in self.records]
        return replace(self, records=records, facts={**self.facts, "features": expected})


def moved(names: Sequence[str], expected: Sequence[str]) -> list[int] | None:
    """The places of the expected names; None if they stand so already, or others do."""
    if list(names) == list(expected) or sorted(names) != sorted(expected):
        return None
    return [names.index(name) for name in expected]


@dataclass(frozen=True)
class Wanted:
    """What a reader reads besides the steps.

    Attributes:
        columns: The target columns, which are not features.
        target: Reads a row's target, given the row's location.
        new: Whether the file is for prediction: targets may then be missing or invalid.
        missing: Whether a feature may be missing.
        audio: Feature extractor for sound.
        leave_out: Columns that are not features, where a row is a step.
        several: Whether the user may ask for several targets.
        transcribed: Whether targets are transcripts: steps of an image are then its columns, along
            the text, and a folder has a text beside each file.
        folder: Where names of files in a table lead from; the table's folder if None.
        features: The names of the features that a new file is to have; None if they have no names.
        groups: The column of the group that a sequence belongs to; None if there are no groups. It
            is not a feature, and new files may lack it.
        weight: The column of how much a sequence counts in the loss, likewise.
        time: The column of the times of steps, which is the last feature; None if there is none.
    """

    columns: tuple[str, ...]
    target: Callable[[str, Row], Any]
    new: bool = False
    missing: bool = False
    audio: LogMel = field(default_factory=LogMel)
    leave_out: tuple[str, ...] = ()
    several: bool = False
    transcribed: bool = False
    folder: Path | None = None
    features: tuple[str, ...] | None = None
    groups: str | None = None
    weight: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and self.weight in (*self.columns, self.groups):
            what = "the target" if self.weight in self.columns else "the groups"
            raise ConfigError(
                f"dataset.weight is {self.weight}, the column of {what}, expected one of its own."
            )
        check_own_column(self.time, *self.about, SEQUENCE, SPLIT, *self.leave_out)

    @property
    def beside_targets(self) -> tuple[str, ...]:
        """The columns of groups and weights, if there are any; new files may lack them."""
        return tuple(name for name in (self.groups, self.weight) if name is not None)

    @property
    def about(self) -> tuple[str, ...]:
        """The columns that say something of a sequence: its targets, its group and its weight."""
        return (*self.columns, *self.beside_targets)

    @property
    def clock(self) -> Clock | None:
        """What reads the times of a file's steps; None if they have none."""
        return None if self.time is None else Clock(self.time)

    def target_of(self, where: str, row: Row) -> Any:
        """A row's target; None if unknown."""
        try:
            return self.target(where, row)
        except DataError:
            if self.new:
                return None
            raise

    def record(self, where: str, row: Row, steps: np.ndarray | str, id: Any = None) -> Record:
        """A sequence with all that a row says of it: target, part, group and weight.

        Raises:
            DataError: One of these is missing or invalid.
        """
        return Record(
            where,
            steps,
            target=self.target_of(where, row),
            split=split_of(where, row),
            id=id,
            group=None if self.new else group_of(where, row, self.groups),
            weight=self._weight_of(where, row),
        )

    def _weight_of(self, where: str, row: Row) -> float | None:
        """How much a row's sequence counts; None in new data, or if all count alike.

        Raises:
            DataError: The row does not say, or not with a number of at least 0.
        """
        if self.weight is None or self.new:
            return None
        need(where, row, self.weight, advice="dataset.weight=COLUMN names another, null none.")
        weight = number_of(where, self.weight, row[self.weight])
        if weight < 0:
            raise DataError(
                f"{where}: column {named(self.weight)} is {shown(row[self.weight])}, expected a "
                "number of at least 0: how much the sequence counts."
            )
        return weight

    def value(self, where: str, column: str, cell: Any) -> float:
        """A feature; NaN if it is missing and that is allowed.

        Raises:
            DataError: The cell is not a finite number, or is missing although that is not allowed.
        """
        if not is_missing(cell):
            return number_of(where, column, cell, gaps=True)
        if self.missing:
            return math.nan
        raise DataError(
            f"{where}: column {column} is {shown(cell)}, expected a finite float32 number.\n"
            "  Fill it in, or say how: dataset.missing=forward or dataset.missing=zero; "
            "dataset.missing=keep leaves it to model/cell=grud."
        )


def check_own_column(time: str | None, *others: str) -> None:
    """Raise ConfigError if the column of times is one that is read otherwise, or left out."""
    if time in others:
        raise ConfigError(
            f"dataset.time is {time}, a column that is read otherwise or left out, expected one of "
            "its own."
        )


class Named(Protocol):
    """A sequence that may have an identifier."""

    id: Any


def ids_of(sequences: Sequence[Named]) -> list[Any] | None:
    """The sequences' identifiers; None if the file has none."""
    ids = [sequence.id for sequence in sequences]
    return None if all(name is None for name in ids) else ids


def split_of(where: str, row: Row) -> Part | None:
    """The part named by a row; None if it names none.

    Raises:
        DataError: The split is not one of the parts.
    """
    split = row.get(SPLIT)
    if SPLIT in row and split not in PARTS:
        raise DataError(f"{where}: split is {shown(split)}, expected {', '.join(PARTS)}.")
    return split


def group_of(where: str, row: Row, column: str | None) -> str | None:
    """The group named by a row's column, as text; None if there is no such column.

    Raises:
        DataError: The row names none, since a sequence of an unknown group could be of any.
    """
    if column is None:
        return None
    need(where, row, column, advice="dataset.groups=COLUMN names another.")
    group = row[column]
    if is_missing(group) or not isinstance(group, (str, int)):
        raise DataError(
            f"{where}: column {named(column)} is {shown(group)}, expected the group of the "
            "sequence, as text or a whole number.\n"
            "  A sequence whose group is unknown could belong to another part: leave it out."
        )
    return str(group).strip()


def part_of(where: str, split: Part | None, own: Part, paths: Iterable[Part]) -> Part:
    """The part a sequence belongs to.

    Args:
        where: Location of the sequence.
        split: The part named by its file, if any.
        own: The part that its file holds.
        paths: Files of the parts that have their own.

    Raises:
        DataError: The file names another part than its own, or the training file names a part that
            has a file of its own.
    """
    part = split or own
    if part != own and (own != "train" or part in paths):
        expected = own if own != "train" else "train: this part has a file of its own"
        raise DataError(f"{where}: split is {part!r}, expected {expected}.")
    return part


class Names:
    """Unique identifiers of sequences."""

    def __init__(self) -> None:
        self._seen: dict[Any, str] = {}

    def add(self, where: str, name: Any) -> None:
        """Register an identifier.

        Raises:
            DataError: The identifier is missing, invalid or a duplicate.
        """
        if not isinstance(name, (str, int)) or not str(name).strip():
            raise DataError(f"{where}: the id is {shown(name)}, expected text or a whole number.")
        if name in self._seen:
            raise DataError(
                f"{where}: sequence {shown(name)} occurs again, first at {self._seen[name]}.\n"
                "  The rows of a sequence must be adjacent, and the ids of sequences distinct."
            )
        self._seen[name] = where
