"""Rows of a table: CSV, TSV, JSON Lines or Parquet, by file suffix."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from seqnets.datasets.files import LARGEST, check_text, parse_number
from seqnets.errors import DataError, counted
from seqnets.optional import optional
from seqnets.quoting import override_list, shell

Row = dict[str, Any]
"""The cells of a row, by column."""

_LISTED = 20
"""The most columns that an error message names."""

_GROUPED = re.compile(r"[-+]?\d+(?:[.,'\s]\d+)+")
"""A number with a decimal comma, or with something between its thousands."""

_AS_NUMBERS = "Numbers have a decimal point and nothing between thousands: 1234.5."


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the location of each row, such as "FILE, line 12", and its cells by column.

    - ``.csv``, ``.tsv``: UTF-8, both with the quoting of CSV. The first line names the columns;
      cells are text, or None if empty.
    - ``.jsonl``, ``.ndjson``: UTF-8, with an object per line. Cells are JSON values; rows may
      differ in their columns.
    - ``.parquet``: cells are Python values, times to the microsecond. Rows are counted from 1.

    Empty lines are skipped. The caller checks the columns and their values: see :func:`need`,
    :func:`number` and :func:`text`.

    Raises:
        DataError: The file is missing, empty, malformed, not UTF-8, or not a table; the message
            says in which line.
        ConfigError: The file is Parquet and pyarrow is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: cannot be read as a table, expected a name that ends with "
            f"{', '.join(SUFFIXES)}."
        )
    row = None
    for row in reader(path):
        yield row
    if row is None:
        raise DataError(f"{path}: got no row, expected at least one.")


def need(where: str, row: Row, *columns: str, advice: str = "") -> None:
    """Raise DataError, with some advice, if a row lacks one of these columns."""
    absent = [column for column in columns if column not in row]
    if absent:
        raise DataError(
            f"{where}: got the columns {listed(row)}, expected {', '.join(absent)} too."
            + (f"\n  {advice}" if advice else "")
        )


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


def leaving_out(
    column: str, row: Row, features: Iterable[str], left_out: Iterable[str] = ()
) -> str:
    """Return the option that leaves out a column, the row's other text, and what it does already.

    Args:
        column: The column.
        row: The row in which the column is no number.
        features: The columns that are read as numbers.
        left_out: The columns that are left out now.
    """
    words = [name for name in features if name == column or _is_word(row.get(name))]
    return shell(override_list("dataset.leave_out", [*left_out, *words]))


def _is_word(cell: Any) -> bool:
    return isinstance(cell, str) and not is_missing(cell) and math.isnan(parse_number(cell))


def named(column: Any) -> str:
    """Return a column's name, quoted if surrounding blanks would be invisible."""
    name = str(column)
    return name if name == name.strip() else repr(name)


def listed(columns: Iterable[Any]) -> str:
    """Return the names of columns for error messages: the first ones, and how many there are."""
    names = [*map(named, columns)]
    first = ", ".join(names[:_LISTED]) or "none"
    return first if len(names) <= _LISTED else f"{first}, ... ({len(names):,} in all)"


def is_missing(value: Any) -> bool:
    """Return whether a cell marks a missing value: empty, null, NaN, ``NA`` or ``?``."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "na", "nan", "null", "?")
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(where: str, column: str, value: Any) -> float:
    """Return a cell's number.

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
            + (f"\n  {_AS_NUMBERS}" if _GROUPED.fullmatch(str(value).strip()) else "")
        )
    return found


def text(where: str, column: str, value: Any) -> str:
    """Return a cell's text.

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


def shown(value: Any) -> str:
    """Format a value for error messages: text is quoted, long values are shortened."""
    if value is None:
        return "missing"
    full = repr(value)
    return full if len(full) <= 60 else f"{full[:57]}..."


def few(values: Sequence[Any]) -> str:
    """Format the first ten of some values for error messages."""
    return ", ".join(map(shown, values[:10])) + (", ..." if len(values) > 10 else "")


def _read_delimited(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a CSV or TSV file."""
    check_text(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows, line, columns = csv.reader(file, delimiter=delimiter, strict=True), 1, None
        try:
            for cells in rows:
                where, line = f"{path}, line {line}", rows.line_num + 1
                if not cells:
                    continue
                if columns is None:
                    columns = cells
                    _check_names(where, columns)
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{where}: got {counted(len(cells), 'cell')}, expected {len(columns)}: "
                        f"{listed(columns)}."
                    )
                yield where, {name: cell or None for name, cell in zip(columns, cells, strict=True)}
        except csv.Error as error:
            raise DataError(
                f"{path}, line {line}: not CSV: {error}.\n"
                "  A quote may be open, or a cell too long; JSON Lines can hold any text."
            ) from None


def find_twice(names: Iterable[str]) -> str | None:
    """Return the first duplicate name; None if all are distinct."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _check_names(where: str, columns: list[str]) -> None:
    """Check the header line."""
    twice = find_twice(columns)
    if twice is not None or "" in columns:
        problem = "one without a name" if "" in columns else f"{twice!r} twice"
        raise DataError(
            f"{where}: got the columns {listed(columns)}, {problem}, expected each name once.\n"
            "  The first line names the columns."
        )
    other = next((mark for mark in ";\t," if len(columns) == 1 and mark in columns[0]), None)
    if other is not None:
        raise DataError(
            f"{where}: got one column {shown(columns[0])}, expected several.\n"
            f"  Columns are separated by commas in .csv, by tabs in .tsv. {_AS_NUMBERS}"
        )


def _read_csv(path: Path) -> Iterator[tuple[str, Row]]:
    return _read_delimited(path, ",")


def _read_tsv(path: Path) -> Iterator[tuple[str, Row]]:
    return _read_delimited(path, "\t")


def _read_json_lines(path: Path) -> Iterator[tuple[str, Row]]:
    check_text(path)
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line, object_pairs_hook=_object)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}, column {error.colno}: not JSON: {error.msg}.") from None
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON that can be read: {error}.") from None
            if not isinstance(row, dict):
                raise DataError(
                    f"{where}: got {shown(row)}, expected a JSON object, "
                    'such as {"column": value}.'
                )
            yield where, row


def _object(pairs: list[tuple[str, Any]]) -> Row:
    """Return a JSON object; raise ValueError if a key occurs twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {find_twice(names)!r} twice")
    return row


def _read_parquet(path: Path) -> Iterator[tuple[str, Row]]:
    with optional(f"{path}: Parquet is read by pyarrow", "tables"):
        import pyarrow
        from pyarrow import parquet
    count = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = find_twice(names)
            if twice is not None:
                raise DataError(
                    f"{path}: got the columns {listed(names)}, {twice!r} twice, expected each name "
                    "once."
                )
            times = {
                place: pyarrow.timestamp("us", column.type.tz)
                for place, column in enumerate(file.schema_arrow)
                if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns"
            }
            for batch in file.iter_batches():
                for place, kind in times.items():  # Python's times have no nanoseconds
                    rounded = batch.column(place).cast(kind, safe=False)
                    batch = batch.set_column(place, names[place], rounded)
                for row in batch.to_pylist():
                    count += 1
                    yield f"{path}, row {count}", row
    except (OSError, OverflowError, ValueError, pyarrow.ArrowException) as error:
        if isinstance(error, DataError):
            raise
        after = f", after row {count}" if count else ""
        raise DataError(f"{path}{after}: cannot be read as Parquet: {error}") from None


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}

SUFFIXES = tuple(_READERS)
"""File suffixes of tables."""
