"""The ``.ts`` format of the UCR, UEA and time series regression archives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seqnets.datasets.readers.cells import is_missing, parse_number
from seqnets.datasets.readers.files import check_text
from seqnets.datasets.readers.records import LABEL, Record, Source, Wanted
from seqnets.errors import DataError, counted


@dataclass
class TimeSeries:
    """The contents of a ``.ts`` file.

    Attributes:
        labels: The class names in header order; empty for regression.
        dimensions: Features I of each step.
        length: Common length of all sequences, if the header gives one.
        cases: Line, steps (T, I) and verbatim label or number of each sequence.
    """

    labels: list[str] = field(default_factory=list)
    dimensions: int = 0
    length: int | None = None
    cases: list[tuple[int, np.ndarray, str]] = field(default_factory=list)


def read_ts(path: Path, regression: bool = False, missing: bool = False) -> TimeSeries:
    """Read a problem in the ``.ts`` format.

    A header of ``@tag value`` lines ends with ``@data``. Then each line is a sequence: its
    dimensions and, last, its target, separated by colons; the values of a dimension are separated
    by commas.

    Args:
        path: The file.
        regression: Whether the header must have ``@targetLabel`` and not ``@classLabel``.
        missing: Whether values may be missing ("?", "NaN"); they become NaN.

    Raises:
        DataError: The file is malformed, or has time stamps or, unless allowed, missing values; the
            message says in which line.
    """
    check_text(path)
    with path.open(encoding="utf-8-sig") as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, start=1))
        content = ((number, line) for number, line in lines if line and not line.startswith("#"))
        series = _read_header(path, content, regression)
        for number, line in content:
            try:
                series.cases.append((number, *_read_case(series, line, missing)))
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
    if not series.cases:
        raise DataError(f"{path}: got no sequence after @data, expected at least one.")
    return series


def read_ts_records(path: Path, wanted: Wanted) -> Source:
    """Read a ``.ts`` file as records, with a class or, if another column is wanted, a number each.

    Raises:
        DataError: As for :func:`read_ts`, or several targets are wanted.
    """
    if len(wanted.columns) != 1:
        raise DataError(
            f"{path}: a .ts file holds one target, and {', '.join(wanted.columns)} are wanted."
        )
    (column,) = wanted.columns
    series = read_ts(path, regression=column != LABEL, missing=wanted.missing)
    records = []
    for line, steps, target in series.cases:
        where = f"{path}, line {line}"
        records.append(Record(where, steps, wanted.target_of(where, {column: target})))
    return Source(records)


def _read_header(path: Path, content: Iterator[tuple[int, str]], regression: bool) -> TimeSeries:
    tags: dict[str, str] = {}
    for number, line in content:
        tag, _, value = line.partition(" ")
        if not tag.startswith("@"):
            raise DataError(
                f"{path}, line {number}: got {line[:40]!r}, expected a header line that begins "
                "with @.\n  The header ends with a line @data."
            )
        if tag.lower() == "@data":
            break
        tags[tag[1:].lower()] = value.strip()
    else:
        raise DataError(f"{path}: got no line @data, expected one after the header.")

    tag, what = ("targetLabel", "") if regression else ("classLabel", " and the labels")
    has_target, *labels = tags.get(tag.lower(), "false").split() or ["false"]
    if has_target.lower() != "true" or not (labels or regression):
        advice = "Classification has @classLabel, regression @targetLabel."
        if regression and "classlabel" in tags:
            advice = (
                "Its @classLabel is for classification, without dataset.label: a .ts file has no "
                "columns to choose from."
            )
        raise DataError(
            f"{path}: @{tag} is {tags.get(tag.lower())!r}, expected 'true'{what}.\n  {advice}"
        )
    if tags.get("timestamps", "false").lower() == "true":
        raise DataError(
            f"{path}: @timeStamps is true, expected false.\n"
            "  Steps must be evenly spaced, without time stamps."
        )
    univariate = tags.get("univariate", "false").lower() == "true"
    equal = tags.get("equallength", "false").lower() == "true"
    try:
        dimensions = int(tags.get("dimensions", "1" if univariate else "0"))
        length = int(tags["serieslength"]) if equal and "serieslength" in tags else None
    except ValueError as error:
        raise DataError(f"{path}: @dimensions or @seriesLength: {error}.") from None
    return TimeSeries([] if regression else labels, dimensions, length)


def _read_case(series: TimeSeries, line: str, missing: bool) -> tuple[np.ndarray, str]:
    """Read one data line; without ``@dimensions``, the first line determines their number."""
    *fields, target = (part.strip() for part in line.split(":"))
    series.dimensions = series.dimensions or len(fields)
    if len(fields) != series.dimensions:
        raise ValueError(f"got {counted(len(fields), 'dimension')}, expected {series.dimensions}.")
    if series.labels and target not in series.labels:
        raise ValueError(f"got label {target!r}, expected one of {', '.join(series.labels)}.")
    dimensions = [
        _read_dimension(number, text, missing) for number, text in enumerate(fields, start=1)
    ]
    lengths = [len(dimension) for dimension in dimensions]
    if len(set(lengths)) > 1:
        raise ValueError(f"got dimensions of {lengths} steps, expected all of one length.")
    if series.length not in (None, lengths[0]):
        raise ValueError(
            f"got {counted(lengths[0], 'step')}, expected {series.length} as the header says."
        )
    return np.stack(dimensions, axis=1), target


def _read_dimension(number: int, text: str, missing: bool) -> np.ndarray:
    values = []
    for place, word in enumerate(text.split(","), start=1):
        value = parse_number(word)
        if math.isnan(value) and not (missing and is_missing(word)):
            raise ValueError(
                f"step {place} of dimension {number} is {word!r}, expected a finite float32 "
                "number.\n"
                "  Missing values ('?', NaN) must be filled in before."
            )
        values.append(value)
    return np.array(values)
