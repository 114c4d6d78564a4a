"""Files of predictions: JSON Lines, an object per row, or a table."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from seqnets.atomic import atomic
from seqnets.cli.names import UsageError
from seqnets.cli.options import check_new
from seqnets.cli.prediction_table import DELIMITERS, write_table
from seqnets.datasets.readers.tables import read_rows
from seqnets.errors import ConfigError, DataError
from seqnets.insight.visible import visible
from seqnets.training import Objective, Row
from seqnets.typing import Known

SUFFIXES = (".jsonl", ".ndjson")
STDOUT = "-"


def check_target(to: str, overwrite: bool) -> None:
    """Raise if a file cannot be written, before a long computation rather than after it.

    Raises:
        UsageError: The name ends neither as JSON Lines do nor as a table does.
        ConfigError: The file exists already, or its folder cannot be written to.
    """
    if to == STDOUT:
        return
    path = Path(to).expanduser()
    suffixes = (*SUFFIXES, *DELIMITERS)
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"to: is {to!r}, expected a name that ends with {', '.join(suffixes)}, "
            f"or {STDOUT} for the standard output."
        )
    check_new("to", to, overwrite)
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"to: is {to!r}, expected a file in a folder that can be written to.")


def write_rows(rows: Iterable[Row], to: str, classes: Sequence[Any] = ()) -> tuple[int, int]:
    """Write rows to a file, whole or not at all, or to the standard output.

    The columns of a table that are of classes stand in the order of these.

    Returns:
        The number of rows, and of those that have a target.

    Raises:
        DataError: A number is infinite or NaN, which JSON does not have.
        ConfigError: The file cannot be written.
    """
    if to == STDOUT:
        return _write(rows, sys.stdout)
    path = Path(to).expanduser()
    delimiter = DELIMITERS.get(path.suffix.lower())
    try:
        with (
            atomic(path) as partial,
            # a file's name need not be UTF-8, and JSON reads its bytes back from the escapes
            partial.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            if delimiter is None:
                return _write(rows, file)
            return _tabulate(rows, file, delimiter, classes)
    except OSError as error:
        raise ConfigError(f"to: {to} cannot be written: {error.strerror}.") from error


def _write(rows: Iterable[Row], file: IO[str]) -> tuple[int, int]:
    count = targets = 0
    seen = visible if file.isatty() else str
    escaped = codecs.lookup(getattr(file, "encoding", None) or "utf-8").name != "utf-8"
    for count, row in enumerate(rows, start=1):
        file.write(f"{seen(_line(count, row, escaped))}\n")
        targets += row.get("target") is not None
    return count, targets


def _tabulate(
    rows: Iterable[Row], file: IO[str], delimiter: str, classes: Sequence[Any]
) -> tuple[int, int]:
    kept = list(rows)
    for number, row in enumerate(kept, start=1):
        _line(number, row)  # raises if a number is not finite
    write_table(kept, file, delimiter, classes)
    return len(kept), sum(row.get("target") is not None for row in kept)


def _line(number: int, row: Row, escaped: bool = False) -> str:
    """A row as JSON; escaped, its characters are those of ASCII."""
    try:
        return json.dumps(row, ensure_ascii=escaped, allow_nan=False)
    except ValueError as error:
        raise DataError(
            f"Row {number}: a number is infinite or NaN, expected finite ones.\n"
            "  The model has diverged, or dataset.missing=keep gave it missing values, which take "
            "a cell such as grud."
        ) from error


def score_file(path: Path, objective: Objective, known: Known) -> tuple[dict[str, float], int]:
    """The metrics of the predictions in a file, and the number of those that have a target.

    Raises:
        DataError: The file is missing or malformed, or has no targets; names the line.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path}: is not JSON Lines, expected a name that ends with {' or '.join(SUFFIXES)}.\n"
            "  `seqnets predict` writes such files."
        )
    found = [(where, row) for where, row in _checked(path) if row["target"] is not None]
    if not found:
        raise DataError(
            f"{path}: no row has a target, expected some to score.\n"
            "  Predict part=test or part=val, or new data whose labels the model knows."
        )
    places, rows = zip(*found, strict=True)
    try:
        figures = objective.scores(rows, known)
    except KeyError as error:
        where = next((where for where, row in found if error.args[0] not in row), str(path))
        raise DataError(f"{where}: got no {error}, expected it in each row.") from error
    except DataError as error:
        raise DataError(_placed(str(error), places)) from error
    if objective.metric not in figures:
        raise ConfigError(
            f"{type(objective).__name__}: has no {objective.metric} for predictions that are read, "
            f"expected its `scores` to give one."
        )
    return figures, len(rows)


def _checked(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, each with where it stands; raise if one has no target entry."""
    for where, row in read_rows(path):
        if "target" not in row:
            raise DataError(
                f"{where}: got no 'target', expected the target of each prediction.\n"
                f"  The keys are {', '.join(row) or 'none'}."
            )
        yield where, row


def _placed(message: str, places: Sequence[str]) -> str:
    """An objective's message with a row's number replaced by the file and line it is from."""
    head, colon, rest = message.partition(": ")
    number = head.removeprefix("Row ")
    if colon and number != head and number.isdecimal() and 0 < int(number) <= len(places):
        return f"{places[int(number) - 1]}: {rest}"
    return message
