"""The cells of a row: their values, and how error messages show them and their columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from seqnets.errors import DataError, cut_short
from seqnets.quoting import override, override_list, shell

Row = dict[str, Any]
"""The cells of a row, by column."""

LARGEST = float(np.finfo(np.float32).max)
"""Largest magnitude of a number in a data file."""

_LISTED = 20
"""The most columns that an error message names."""

_GROUPED = re.compile(r"[-+]?\d+(?:[.,'\s]\d+)+")
"""A number with a decimal comma, or with something between its thousands."""

AS_NUMBERS = "Numbers have a decimal point and nothing between thousands: 1234.5."

_MARK = re.compile(r"[-–—./\\]+|#?n[./]?[av]\.?|none|nil|missing", re.IGNORECASE)
"""What stands for a missing value in other programs, but is none here."""

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
"""How a time stamp begins."""

_ROW_BELOW_HEADER = re.compile(r"(?<=\.[ct]sv), line \d+$", re.IGNORECASE)


def naming(where: str) -> str:
    """Where the columns of a row are named: in the header of its file, or else the row itself."""
    return _ROW_BELOW_HEADER.sub(", header", where)


def need(where: str, row: Row, *columns: str, advice: str = "") -> None:
    """Raise DataError, with some advice, if a row lacks one of these columns."""
    absent = [column for column in columns if column not in row]
    if absent:
        raise DataError(
            f"{naming(where)}: got the columns {listed(row)}, expected {', '.join(absent)} too."
            + (f"\n  {advice}" if advice else "")
        )


def is_missing(value: Any) -> bool:
    """Whether a cell marks a missing value: empty, null, NaN, ``NA`` or ``?``."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "na", "nan", "null", "?")
    return value is None or (isinstance(value, float) and math.isnan(value))


def number_of(where: str, column: str, value: Any, *, gaps: bool = False) -> float:
    """A cell's number.

    Args:
        where: The cell's place, for error messages.
        column: Its column, likewise.
        value: The cell.
        gaps: Whether a value may be missing, so that the error says how that is written.

    Raises:
        DataError: The cell is not a number (a boolean is not), or exceeds float32.
    """
    found = math.nan
    if isinstance(value, str):
        found = parse_number(value)
    elif isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        found = float(value) if -LARGEST <= value <= LARGEST else math.nan
    if math.isnan(found):
        raise DataError(
            f"{where}: column {column} is {shown(value)}, expected a finite float32 number."
            + (_advice(value.strip(), gaps) if isinstance(value, str) else "")
        )
    return found


def _advice(cell: str, gaps: bool) -> str:
    """How numbers and missing values are written, for a cell that is meant as one of them."""
    if _GROUPED.fullmatch(cell):
        return f"\n  {AS_NUMBERS}"
    if gaps and _MARK.fullmatch(cell):
        return "\n  A missing value is an empty cell, null, NaN, NA or ?."
    return ""


def parse_number(text: str) -> float:
    """A number in decimal notation, or NaN if the text is not one or exceeds float32.

    What only Python reads as a number is not one: ``1_000``, or digits of other scripts.
    """
    if "_" in text or not text.isascii():
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if abs(number) <= LARGEST else math.nan


def text_of(where: str, column: str, value: Any) -> str:
    """A cell's text.

    Raises:
        DataError: The cell is not text, is empty, or cannot be encoded as UTF-8.
    """
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: column {column} is {shown(value)}, expected text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: column {column} has a lone surrogate, {value[error.start]!r}, at position "
            f"{error.start}, expected Unicode text."
        ) from None
    return value


def features_of(
    where: str,
    row: Row,
    features: Sequence[str],
    left_out: Iterable[str],
    read: Callable[[str, str, Any], float] = number_of,
) -> list[float]:
    """The numbers of a row's features.

    Args:
        where: The row's place, for error messages.
        row: The row.
        features: The columns to read.
        left_out: The columns that are left out now.
        read: Returns a cell's number.

    Raises:
        DataError: A cell is not a number; the message says how to leave its column out, or, if it
            is a time stamp, how to have its times read.
    """
    numbers = []
    for column in features:
        try:
            numbers.append(read(where, column, row[column]))
        except DataError as error:
            option = leaving_out(column, row, features, left_out)
            other = ""
            if isinstance(row[column], str) and _DATE.match(row[column].strip()):
                other = f" If it is when steps were: {shell(override('dataset.time', column))}."
            elif is_word(row[column]):
                other = " If it is a category: a column of 0 and 1 for each of its values instead."
            raise DataError(f"{error}\n  If it is not a feature: {option}.{other}") from None
    return numbers


def leaving_out(column: str, row: Row, features: Iterable[str], left_out: Iterable[str]) -> str:
    """The option that leaves out a column, the row's other text, and what it does already.

    Args:
        column: The column.
        row: The row in which the column is not a number.
        features: The columns that are read as numbers.
        left_out: The columns that are left out now.
    """
    words = [name for name in features if name == column or is_word(row.get(name))]
    return shell(override_list("dataset.leave_out", [*left_out, *words]))


def is_word(cell: Any) -> bool:
    """Whether a cell is text that is not even meant as a number, as ``1,5`` and ``inf`` are."""
    if not isinstance(cell, str) or is_missing(cell) or _GROUPED.fullmatch(cell.strip()):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False


def check_left_out(where: str, row: Row, names: Sequence[str], read: Sequence[str]) -> None:
    """Raise DataError for a column to leave out that a row lacks, or that is read otherwise."""
    need(where, row, *names, advice="dataset.leave_out names columns that are not features.")
    for name in names:
        if name in read:
            raise DataError(
                f"{where}: leave_out has {named(name)}, expected columns that would be features.\n"
                f"  {listed(read)} are never features."
            )


def refuse_left_out(where: str, names: Sequence[str]) -> None:
    """Raise DataError if there are columns to leave out of what has no columns of features."""
    if names:
        raise DataError(
            f"{where}: leave_out is {', '.join(names)}, expected none: only a table with a row per "
            "step has columns of features."
        )


def check_spellings(places: Mapping[Any, str]) -> None:
    """Raise DataError if two labels, each with a place, differ only in the blanks around them."""
    seen: dict[str, str] = {}
    for label in sorted(label for label in places if isinstance(label, str)):
        other = seen.setdefault(label.strip(), label)
        if other != label:
            odd = label if label != label.strip() else other
            raise DataError(
                f"{places[odd]}: has the labels {shown(other)} and {shown(label)}, expected one "
                "spelling, without blanks around it."
            )


def shown(value: Any) -> str:
    """Format a value for error messages: text is quoted, long values are shortened."""
    if value is None:
        return "missing"
    return cut_short(repr(value), 60)


def few(values: Sequence[Any]) -> str:
    """Format the first ten of some values for error messages."""
    return ", ".join(map(shown, values[:10])) + (", ..." if len(values) > 10 else "")


def named(column: Any) -> str:
    """A column's name, quoted if surrounding blanks would be invisible."""
    name = str(column)
    return name if name == name.strip() else repr(name)


def listed(columns: Iterable[Any]) -> str:
    """The names of columns for error messages: the first ones, and how many there are."""
    names = [*map(named, columns)]
    first = ", ".join(names[:_LISTED]) or "none"
    return first if len(names) <= _LISTED else f"{first}, ... ({len(names):,} in all)"
