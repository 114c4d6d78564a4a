"""Rows of a table: CSV, TSV, JSON Lines or Parquet, by file suffix."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from seqnets.datasets.readers.cells import AS_NUMBERS, Row, listed, shown
from seqnets.datasets.readers.files import check_text
from seqnets.errors import DataError, counted
from seqnets.optional import optional


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the location of each row, such as "FILE, line 12", and its cells by column.

    - ``.csv``, ``.tsv``: UTF-8, both with the quoting of CSV. The first line names the columns;
      cells are text, or None if empty.
    - ``.jsonl``, ``.ndjson``: UTF-8, with an object per line. Cells are JSON values; rows may
      differ in their columns.
    - ``.parquet``: cells are Python values, times to the microsecond. Rows are counted from 1.

    Empty lines are skipped. The caller checks the columns and their values by ``cells.py``.

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
    """The first duplicate name; None if all are distinct."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _check_names(where: str, columns: list[str]) -> None:
    """Check the header line."""
    twice = find_twice(columns)
    if twice is not None or "" in columns:
        nameless = columns.count("")
        problem = f"{nameless} without a name" if nameless else f"{twice!r} twice"
        advice = ""
        if columns[0] == "" and nameless == 1 and twice is None:
            advice = " If pandas wrote its index as the first: to_csv(…, index=False)."
        elif nameless and not any(columns[-nameless:]):
            advice = " Spreadsheets write empty columns at the end: delete these there."
        raise DataError(
            f"{where}: got the columns {listed(columns)}, {problem}, expected each name once.\n"
            f"  The first line names the columns.{advice}"
        )
    other = next((mark for mark in ";\t," if len(columns) == 1 and mark in columns[0]), None)
    if other is not None:
        raise DataError(
            f"{where}: got one column {shown(columns[0])}, expected several.\n"
            f"  Columns are separated by commas in .csv, by tabs in .tsv. {AS_NUMBERS}"
        )


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
    """A JSON object; raise ValueError if a key occurs twice."""
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
    ".csv": partial(_read_delimited, delimiter=","),
    ".tsv": partial(_read_delimited, delimiter="\t"),
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}

SUFFIXES = tuple(_READERS)
"""File suffixes of tables."""
