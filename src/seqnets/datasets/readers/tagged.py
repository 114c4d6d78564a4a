"""Sequences with a label per step, from user files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqnets.checks import is_whole
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import (
    Row,
    check_left_out,
    features_of,
    listed,
    naming,
    need,
    number_of,
    refuse_left_out,
    shown,
    text_of,
)
from seqnets.datasets.readers.clocks import Clock
from seqnets.datasets.readers.files import check_text
from seqnets.datasets.readers.records import (
    ID,
    SEQUENCE,
    SPLIT,
    Names,
    check_own_column,
    group_of,
    moved,
    split_of,
)
from seqnets.datasets.readers.tables import SUFFIXES, read_rows
from seqnets.errors import DataError, counted
from seqnets.quoting import override_list, shell

TOKENS, X, LABELS = "tokens", "x", "labels"

CONLL = (".conll", ".txt", ".bio", ".iob2")
"""Suffixes of files with a word and its label on each line."""

DOCUMENT = "-DOCSTART-"
"""Document separator of CoNLL files."""


@dataclass
class Tagged:
    """One sequence.

    Attributes:
        where: Location of its first step: file and line.
        features: The feature names; empty if steps are words.
        steps: Its words, or the features of each step.
        labels: The label of each step, None if unknown.
        places: First location of each label.
        split: The part named by the file.
        id: Its identifier; None if it has none.
        group: The group it belongs to, if it was asked for.
        times: What the times of its steps are, which are the last feature, if they were asked for.
    """

    where: str
    features: tuple[str, ...] = ()
    steps: list[Any] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    split: Part | None = None
    id: Any = None
    group: str | None = None
    times: str | None = None

    def add(self, where: str, step: Any, label: str | None) -> None:
        """Append a step."""
        self.steps.append(step)
        self.labels.append(label)
        if label is not None:
            self.places.setdefault(label, where)

    def in_order(self, expected: tuple[str, ...]) -> Tagged:
        """The sequence with its features as ``expected``, if those are the same names."""
        if (columns := moved(self.features, expected)) is None:
            return self
        steps = [[step[column] for column in columns] for step in self.steps]
        return replace(self, features=expected, steps=steps)

    def windows(self, length: int) -> Iterator[Tagged]:
        """Split it into windows of ``length`` steps; the last may be shorter."""
        for start in range(0, len(self.steps), length):
            piece = slice(start, start + length)
            yield replace(self, steps=self.steps[piece], labels=self.labels[piece])


def read_tagged(
    path: Path,
    label: str = "label",
    leave_out: Sequence[str] = (),
    groups: str | None = None,
    time: str | None = None,
    *,
    new: bool = False,
) -> list[Tagged]:
    """Read sequences with a label per step.

    - ``.conll``, ``.txt``, ``.bio``, ``.iob2``: one word per line, with its label in the last
      column; columns are separated by tabs or, in a line without tabs, by spaces. All lines have
      the same number of columns; those in between are ignored. An empty line ends a sentence.
      Lines that begin with ``-DOCSTART-`` are skipped, and those before a sentence that begin with
      ``#`` and have no tab, if others have.
    - ``.jsonl`` or ``.parquet``: one sequence per row: ``tokens`` (words) or ``x`` (a list of
      numbers per step), and ``labels``, one per step, null if unknown; optionally ``id`` and
      ``split``.
    - ``.csv``, ``.tsv`` (or ``.jsonl`` and ``.parquet`` if neither ``tokens`` nor ``x`` is a
      list): one step per row: a column for the label, which may be empty, and numeric columns for
      the features; optionally ``split`` and ``sequence``, whose rows must be adjacent. Without
      ``sequence``, the file is a single sequence.

    A file may have no labels at all.

    Args:
        path: The file.
        label: The label column, if a row is a step.
        leave_out: Columns to ignore, of a table in which a row is a step.
        groups: Column of the group that a sequence belongs to, if any, which is not a feature.
        time: Column of the times of steps, if any, which is the last feature; a list of them where
            a row is a sequence.
        new: Whether the file is for prediction, in which ignored columns and groups may be absent.

    Raises:
        DataError: The file is missing, empty or malformed; the message says in which line.
    """
    suffix, clock = path.suffix.lower(), None if time is None else Clock(time)
    if suffix in CONLL:
        if time is not None:
            raise _untimed(path, time)
        if groups is not None and not new:
            raise DataError(
                f"{path}: does not say which group a sentence belongs to, expected a table with "
                f"{groups}.\n  dataset.groups names a column."
            )
        found = list(_read_conll(path))
    elif suffix in SUFFIXES:
        rows = list(read_rows(path))
        if any(isinstance(rows[0][1].get(column), list) for column in (TOKENS, X)):
            if not new:
                refuse_left_out(str(path), leave_out)
            found = list(_by_sequence(rows, None if new else groups, clock))
        else:
            found = list(_by_step(rows, label, leave_out, groups, new, clock))
    else:
        raise DataError(
            f"{path}: cannot be read, expected a name that ends with "
            f"{', '.join((*CONLL, *SUFFIXES))}."
        )
    if not found:
        raise DataError(f"{path}: got no sequence, expected at least one.")
    if time is not None and not found[0].features:
        raise _untimed(path, time)
    for sequence in found:
        check_alike(sequence, found[0])
    return found


def _untimed(path: Path, time: str) -> DataError:
    return DataError(
        f"{path}: has words, expected a table of numbers with {time}.\n"
        "  dataset.time names the column of the times of steps."
    )


def check_alike(sequence: Tagged, first: Tagged) -> None:
    """Raise DataError unless the steps of two sequences are of the same kind."""
    if sequence.features != first.features:
        raise DataError(
            f"{naming(sequence.where)}: got {_kind(sequence)}, expected {_kind(first)} as in "
            f"{naming(first.where)}."
        )
    if sequence.times != first.times:
        raise DataError(
            f"{sequence.where}: its times are {sequence.times}, expected {first.times}, as in "
            f"{first.where}."
        )


def _kind(sequence: Tagged) -> str:
    features = sequence.features
    return f"the features {', '.join(features)}" if features else "words"


def _read_conll(path: Path) -> Iterator[Tagged]:
    """Yield the sentences of a CoNLL file."""
    check_text(path)
    sentence, columns, marked = None, 0, False
    with path.open(encoding="utf-8-sig") as file:
        has_tabs = any("\t" in line for line in file)
        file.seek(0)
        for place, line in enumerate(file, start=1):
            line = line.strip("\n")
            if has_tabs and sentence is None and line.startswith("#") and "\t" not in line:
                continue  # a comment
            if not line.strip() or line.startswith(DOCUMENT):
                if sentence is not None:
                    yield sentence
                sentence = None
                continue
            where = f"{path}, line {place}"
            # A word may contain other spaces.
            cells = [cell.strip(" ") for cell in line.split("\t")]
            if len(cells) == 1:
                cells = [cell for cell in line.split(" ") if cell]
            word, label = cells[0], cells[-1] if len(cells) > 1 else None
            if not word or label == "":
                raise DataError(
                    f"{where}: got {shown(line)}, expected a word and its label, with a tab or "
                    "spaces between them, or an empty line."
                )
            columns, marked = columns or len(cells), marked or word == "#"
            if len(cells) != columns:
                raise DataError(
                    f"{where}: got {counted(len(cells), 'column')}, expected {columns} as in the "
                    "first line with a word.\n  A line is a word, and an empty line ends a "
                    "sentence."
                    + " Comments (# …) may precede it where tabs separate the columns."
                    * marked
                )
            sentence = sentence or Tagged(where)
            sentence.add(where, word, label)
    if sentence is not None:
        yield sentence


def _by_sequence(
    rows: Sequence[tuple[str, Row]], groups: str | None, clock: Clock | None
) -> Iterator[Tagged]:
    """Yield the sequences of a table with one row per sequence."""
    names = Names()
    for where, row in rows:
        column = TOKENS if TOKENS in row else X
        need(where, row, column)
        if ID in row:
            names.add(where, row[ID])
        steps, labels = _list(where, column, row[column]), row.get(LABELS)
        if column == TOKENS:
            steps = [text_of(where, f"{column}[{i}]", word) for i, word in enumerate(steps)]
            features: tuple[str, ...] = ()
        else:
            steps = [_numbers(where, f"{column}[{i}]", step) for i, step in enumerate(steps)]
            features = tuple(map(str, range(1, len(steps[0]) + 1)))
        labels = [None] * len(steps) if labels is None else _list(where, LABELS, labels)
        if len(labels) != len(steps):
            raise DataError(
                f"{where}: got {counted(len(labels), 'label')} for {len(steps)} {column}, "
                "expected one for each."
            )
        split, group = split_of(where, row), group_of(where, row, groups)
        sequence = Tagged(where, features, split=split, id=row.get(ID), group=group)
        for place, (step, given) in enumerate(zip(steps, labels, strict=True)):
            if features and len(step) != len(features):
                raise DataError(
                    f"{where}: {column}[{place}] has {counted(len(step), 'number')}, expected "
                    f"{len(features)} as {column}[0] has."
                )
            sequence.add(where, step, _label(where, f"{LABELS}[{place}]", given))
        if clock is not None and features:
            sequence.steps = clock.beside(where, row, sequence.steps)
            sequence.features, sequence.times = (*features, clock.column), clock.kind
        yield sequence


def _by_step(
    rows: Sequence[tuple[str, Row]],
    label: str,
    leave_out: Sequence[str],
    groups: str | None,
    new: bool,
    clock: Clock | None,
) -> Iterator[Tagged]:
    """Yield the sequences of a table with one row per step."""
    of_group = () if groups is None else (groups,)
    if not new:
        check_left_out(*rows[0], leave_out, (SEQUENCE, SPLIT, label, *of_group))
    others = (label, SEQUENCE, SPLIT, *leave_out, *of_group)
    timed = () if clock is None else (clock.column,)
    if clock is not None:
        check_own_column(clock.column, *others)
        clock.need(*rows[0])
    features = _feature_columns(*rows[0], (*others, *timed), leave_out)
    names, current = Names(), None
    for where, row in rows:
        need(where, row, *features, *timed)
        name, split = row.get(SEQUENCE), split_of(where, row)
        group = None if new else group_of(where, row, groups)
        if current is None or name != current.id:
            if SEQUENCE in rows[0][1]:
                names.add(where, name)
            if current is not None:
                yield current
            current = Tagged(where, (*features, *timed), split=split, id=name, group=group)
            if clock is not None:
                clock.begin()
        of_sequence = ((SPLIT, split, current.split), (groups, group, current.group))
        for what, found, expected in of_sequence:
            if found != expected:
                raise DataError(
                    f"{where}: {what} is {shown(found)}, expected {shown(expected)}, "
                    f"which the sequence has since {current.where}."
                )
        step = features_of(where, row, features, leave_out)
        if clock is not None:
            step.append(clock.read(where, row[clock.column]))
            current.times = clock.kind
        current.add(where, step, _label(where, label, row.get(label)))
    if current is not None:
        yield current


def _feature_columns(
    where: str, row: Row, others: Sequence[str], leave_out: Sequence[str]
) -> tuple[str, ...]:
    """The columns of a table, a row per step, that are features: all but some others.

    Raises:
        DataError: There are none, or one names sequences but not by the name of such a column.
    """
    features = tuple(column for column in row if column not in others)
    if not features:
        raise DataError(
            f"{naming(where)}: got the columns {listed(row)}, expected "
            f"{listed(others)} and one or more features.\n"
            f"  {SEQUENCE} and {SPLIT} may be missing, and the label where it is to be predicted; "
            "dataset.label names its column."
        )
    if ID in features and SEQUENCE not in row:  # else it would be a feature of one long one
        option = shell(override_list("dataset.leave_out", [*leave_out, ID]))
        raise DataError(
            f"{naming(where)}: got a column {ID}, expected {SEQUENCE}, which says what rows belong "
            f"together.\n  Rename it; if it says something else: {option}."
        )
    return features


def _list(where: str, column: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: {column} is {shown(value)}, expected a list of one or more.")
    return value


def _numbers(where: str, column: str, value: Any) -> list[float]:
    return [
        number_of(where, f"{column}[{i}]", cell)
        for i, cell in enumerate(_list(where, column, value))
    ]


def _label(where: str, column: str, value: Any) -> str | None:
    """A label, which may be a whole number."""
    if value is None:
        return None
    if is_whole(value):
        return str(value)
    return text_of(where, column, value)
