"""Predictions as a table: what is nested becomes columns, and what has steps becomes lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import IO, Any

from seqnets.training import Row

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""By the name's end."""


def write_table(rows: Iterable[Row], file: IO[str], delimiter: str) -> None:
    """Write rows as a table with a line each, or a line a step where what is said is a list.

    Steps say which row they are of. A column of what is nested is called as the keys that lead to
    it, ``prediction.sales``. Cells are empty where there is nothing; lists that are no steps are
    written as JSON.
    """
    lines = [line for number, row in enumerate(rows, start=1) for line in _lines(number, row)]
    columns = dict.fromkeys(column for line in lines for column in line)
    table = csv.DictWriter(file, list(columns), delimiter=delimiter, lineterminator="\n")
    table.writeheader()
    table.writerows({column: _text(cell) for column, cell in line.items()} for line in lines)


def _lines(number: int, row: Row) -> Iterator[Row]:
    """A row, or its steps, where what is said is a list of them."""
    cells = dict(_flat(row, ""))
    said = next((cell for column, cell in cells.items() if column.startswith("prediction")), None)
    if not isinstance(said, list):
        yield cells
        return
    for step, _ in enumerate(said):
        line: Row = {"row": number}
        for column, cell in cells.items():
            if _is_of_steps(cell, len(said)):
                line.setdefault("step", step + 1)
                line[column] = cell[step]
            else:
                line[column] = cell
        yield line


def _is_of_steps(cell: Any, steps: int) -> bool:
    """Whether a cell has something of each step; things that are found, such as names, are none."""
    return isinstance(cell, list) and len(cell) == steps and not isinstance(cell[0], dict)


def _flat(row: Row, prefix: str) -> Iterator[tuple[str, Any]]:
    """Columns and their cells; nothing for what is not known."""
    for key, cell in row.items():
        if isinstance(cell, dict):
            yield from _flat(cell, f"{prefix}{key}.")
        elif cell is not None:
            yield f"{prefix}{key}", cell


def _text(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, (list, dict)) else cell
