"""The time series archives of UCR and UEA: files in the ``.ts`` format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.datasets.base import Part
from seqnets.datasets.classification import LabelledData
from seqnets.datasets.files import check_text, parse_number
from seqnets.datasets.sequences import Sequences, Splits, split_off, standardise
from seqnets.errors import DataError


class TimeSeriesFiles(LabelledData):
    """Labelled time series of the UCR and UEA archives (``.ts`` files); classification.

    Reads ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``, with one or more dimensions and of equal or
    different lengths. Validation sequences are taken from the training file.

    Args:
        root: Folder with the two files, or with them in a folder ``ucr`` or ``NAME`` below.
        name: The problem, for instance JapaneseVowels.
        **data: The arguments of :class:`LabelledData`.
    """

    def __init__(self, root: str, name: str = "JapaneseVowels", **data: Any) -> None:
        super().__init__(**data)
        self.root, self.problem = root, name

    def read_splits(self) -> Splits:
        """Return the sequences of all parts.

        Raises:
            DataError: A file is missing or malformed; says in which line.
        """
        train, test = read_ts(self._file("TRAIN")), read_ts(self._file("TEST"))
        for what, first, second in (
            ("class labels", train.labels, test.labels),
            ("dimensions", train.dimensions, test.dimensions),
        ):
            if first != second:
                raise DataError(
                    f"TimeSeriesFiles: {self.problem}_TEST.ts has the {what} {second}, "
                    f"expected {first} as {self.problem}_TRAIN.ts has."
                )
        rest, val = split_off(self.problem, train.sequences(), self.validation_fraction, self.seed)
        parts: dict[Part, Sequences] = {"train": rest, "val": val, "test": test.sequences()}
        splits = Splits(parts, train.labels)
        return standardise(splits) if self.standardise else splits

    def _file(self, part: str) -> Path:
        root, file = Path(self.root).expanduser(), f"{self.problem}_{part}.ts"
        for folder in (root, root / "ucr", root / self.problem):
            if (folder / file).is_file():
                return folder / file
        raise DataError(
            f"TimeSeriesFiles: no {file} in {root}, {root / 'ucr'} or {root / self.problem}.\n"
            "  The archive is at https://www.timeseriesclassification.com; set root to its folder."
        )


@dataclass
class TimeSeries:
    """What a ``.ts`` file holds.

    Attributes:
        labels: The names of the classes, in the order of the header.
        dimensions: Features I of each step.
        length: Steps of every sequence, where the header says that all have the same.
        cases: Sequences, each (T, I), and the numbers of their labels.
    """

    labels: list[str] = field(default_factory=list)
    dimensions: int = 0
    length: int | None = None
    cases: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def sequences(self) -> Sequences:
        """Return all cases behind each other."""
        arrays, labels = zip(*self.cases, strict=True)
        return Sequences.of(arrays, labels)


def read_ts(path: Path) -> TimeSeries:
    """Read a classification problem in the ``.ts`` format.

    A header of ``@tag value`` lines ends with ``@data``; then one sequence a line, its dimensions
    and at last its label between colons, the values of a dimension between commas.

    Raises:
        DataError: The file is not such a file, or holds time stamps or missing values; says in
            which line.
    """
    check_text(path)
    with path.open(encoding="utf-8-sig") as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, start=1))
        content = ((number, line) for number, line in lines if line and not line.startswith("#"))
        series = _read_header(path, content)
        for number, line in content:
            try:
                series.cases.append(_read_case(series, line))
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
    if not series.cases:
        raise DataError(f"{path}: no sequence came after @data, expected at least one.")
    return series


def _read_header(path: Path, content: Iterator[tuple[int, str]]) -> TimeSeries:
    tags: dict[str, str] = {}
    for number, line in content:
        tag, _, value = line.partition(" ")
        if not tag.startswith("@"):
            raise DataError(
                f"{path}, line {number}: {line[:40]!r} came, expected a header line that begins "
                "with @.\n  The header ends with a line @data."
            )
        if tag.lower() == "@data":
            break
        tags[tag[1:].lower()] = value.strip()
    else:
        raise DataError(f"{path}: no line @data came, expected one after the header.")

    has_labels, *labels = tags.get("classlabel", "false").split() or ["false"]
    if has_labels.lower() != "true" or not labels:
        raise DataError(
            f"{path}: @classLabel is {tags.get('classlabel')!r}, expected 'true' and the labels.\n"
            "  Only classification problems can be read."
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
    return TimeSeries(labels, dimensions, length)


def _read_case(series: TimeSeries, line: str) -> tuple[np.ndarray, int]:
    """Read one data line; a header without @dimensions leaves their number to the first line."""
    *fields, label = (part.strip() for part in line.split(":"))
    series.dimensions = series.dimensions or len(fields)
    if len(fields) != series.dimensions:
        raise ValueError(f"{len(fields)} dimensions came, expected {series.dimensions}.")
    if label not in series.labels:
        raise ValueError(f"label {label!r} came, expected one of {', '.join(series.labels)}.")
    dimensions = [_read_dimension(number, text) for number, text in enumerate(fields, start=1)]
    lengths = [len(dimension) for dimension in dimensions]
    if len(set(lengths)) > 1:
        raise ValueError(f"dimensions of {lengths} steps came, expected all of one length.")
    if series.length not in (None, lengths[0]):
        raise ValueError(f"{lengths[0]} steps came, expected {series.length} as the header says.")
    return np.stack(dimensions, axis=1), series.labels.index(label)


def _read_dimension(number: int, text: str) -> np.ndarray:
    values = np.array([parse_number(word) for word in text.split(",")])
    missing = np.isnan(values)
    if missing.any():
        place = int(missing.argmax())
        raise ValueError(
            f"step {place + 1} of dimension {number} is {text.split(',')[place]!r}, "
            "expected a finite number.\n"
            "  Missing values ('?', NaN) must be filled in before."
        )
    return values
