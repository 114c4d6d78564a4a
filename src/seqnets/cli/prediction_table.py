"""Predictions as a table: nested entries become columns, and lists by step become lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from seqnets.training import Row

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""What separates cells, by the file's suffix."""


def write_table(
    rows: Iterable[Row], file: IO[str], delimiter: str, classes: Sequence[Any] = ()
) -> None:
    """Write rows as a table: a line per row, or a line per step if the prediction is a list.

    Lines of steps name their row. Columns of nested entries are named by the keys that lead to
    them, such as ``prediction.sales``; those of probabilities stand in the order of the classes.
    Missing entries are empty cells. Lists that are not by step are written as JSON, in a row's
    first line.
    """
    lines = [line for number, row in enumerate(rows, start=1) for line in _lines(number, row)]
    columns = list(dict.fromkeys(column for line in lines for column in line))
    order = {f"probabilities.{label}": place for place, label in enumerate(classes)}
    if shares := sorted(order.keys() & {*columns}, key=order.__getitem__):
        place = next(place for place, column in enumerate(columns) if column in order)
        others = [column for column in columns if column not in order]
        columns = [*others[:place], *shares, *others[place:]]
    table = csv.DictWriter(_Unix(file), columns, delimiter=delimiter)
    table.writeheader()
    table.writerows({column: _text(cell) for column, cell in line.items()} for line in lines)


class _Unix:
    """A file in which a csv.writer's lines end with LF alone.

    Told to end them so itself, it quotes no cell with a lone CR, before Python 3.13.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> None:
        """Write one line, which ends with CR LF."""
        self._file.write(line.removesuffix("\r\n") + "\n")


def _lines(number: int, row: Row) -> Iterator[Row]:
    """The lines of a row: one, or one per step if its prediction is a list."""
    cells = dict(_flat(row, ""))
    prediction = next(
        (cell for column, cell in cells.items() if column.startswith("prediction")), None
    )
    if not isinstance(prediction, list):
        yield cells
        return
    for step, _ in enumerate(prediction):
        line: Row = {"row": number}
        for column, cell in cells.items():
            if _is_by_step(cell, len(prediction)):
                line.setdefault("step", step + 1)
                line[column] = cell[step]
            elif not (step and isinstance(cell, list)):
                line[column] = cell
        yield line


def _is_by_step(cell: Any, steps: int) -> bool:
    """Whether a cell has an entry for each step; a list of mappings, such as entities, has not."""
    return isinstance(cell, list) and len(cell) == steps and not isinstance(cell[0], dict)


def _flat(row: Row, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a row and their cells, except for unknown entries."""
    for key, cell in row.items():
        if isinstance(cell, dict):
            yield from _flat(cell, f"{prefix}{key}.")
        elif cell is not None:
            yield f"{prefix}{key}", cell


def _text(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, (list, dict)) else cell
