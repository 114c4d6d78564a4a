"""Results of a benchmark run, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from seqnets.atomic import atomic
from seqnets.benchmarking.acceptance import Verdict
from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.surroundings import commit, machine, now, versions
from seqnets.errors import DataError, counted

_FORMAT = 1

HEADINGS = ("ms", "IQR", "× torch.nn", "÷ floor", "steps/s", "MiB", "first")
"""Headings of the numeric columns."""


@dataclass(frozen=True)
class Row:
    """The results of one contestant.

    Attributes:
        name: Name of the contestant.
        ms: Median time of the pass, in ms.
        iqr: Interquartile range of the time, in ms.
        rounds: Number of measurements.
        vs_torch: torch.nn's time divided by this one (above 1: faster); None if it was not timed.
        vs_floor: This time divided by that of the matrix products alone; None if that was not
            timed.
        steps_per_s: Throughput, B·T per second.
        mib: Peak memory of a training pass, in MiB; None if it was not measured.
        first_ms: Time of the first run, including compilation, in ms; None if it was not timed.
        note: Remark for the reader.
    """

    name: str
    ms: float
    iqr: float
    rounds: int
    vs_torch: float | None
    vs_floor: float | None
    steps_per_s: float
    mib: float | None = None
    first_ms: float | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """The name, followed by any note."""
        return f"{self.name} ({self.note})" if self.note else self.name

    def cells(self) -> tuple[str, ...]:
        """The results as text, in the order of :data:`HEADINGS`."""
        return (
            _rounded(self.ms, 4),
            _rounded(self.iqr, 2),
            "" if self.vs_torch is None else f"{self.vs_torch:.2f}",
            "" if self.vs_floor is None else f"{self.vs_floor:.2f}",
            f"{self.steps_per_s:,.0f}",
            "" if self.mib is None else f"{self.mib:.2f}",
            "" if self.first_ms is None else _rounded(self.first_ms, 3),
        )


@dataclass(frozen=True)
class Measured:
    """The results of a case.

    Attributes:
        case: The case.
        rows: Results of each contestant, the floor first.
        refused: Why a contestant was not timed although it could run: it disagrees with the
            reference, or failed.
        absent: Why a contestant did not take part.
    """

    case: Case
    rows: list[Row]
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def row(self, name: str) -> Row | None:
        """A contestant's results; None if there are none."""
        return next((row for row in self.rows if row.name == name), None)

    def notes(self) -> list[str]:
        """The rows' notes, with their names."""
        return [f"{row.name}: {row.note}" for row in self.rows if row.note]

    def reasons(self) -> list[str]:
        """A line for each contestant that was not timed."""
        refused = [f"{name}: refused, not timed: {why}" for name, why in self.refused.items()]
        return refused + [f"{name}: {why}" for name, why in self.absent.items()]


@dataclass
class Report:
    """The results of a benchmark run.

    Attributes:
        options: Options of the run.
        machine: Processor, cores, threads, compiler, GPU and its driver.
        versions: Versions of Python and the packages involved.
        commit: The revision of seqnets, and whether its files differ from it; None if unknown.
        date: Start of the run, in UTC.
        measured: Results of each case.
        verdicts: The acceptance table.
    """

    options: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)
    commit: dict[str, Any] | None = field(default_factory=commit)
    date: str = field(default_factory=now)
    measured: list[Measured] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the report as JSON, atomically."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        with atomic(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report that :meth:`save` wrote.

        Raises:
            DataError: The file is not such a report.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise ValueError("it has another format")
            measured = [
                Measured(
                    Case(**entry.pop("case")), [Row(**row) for row in entry.pop("rows")], **entry
                )
                for entry in content.pop("measured")
            ]
            verdicts = [Verdict(**entry) for entry in content.pop("verdicts")]
            return cls(measured=measured, verdicts=verdicts, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Benchmark {path}: cannot be read: {error}.\n"
                f"  Expected a file that `seqnets benchmark` wrote."
            ) from error


def markdown(report: Report) -> str:
    """A report as Markdown: the acceptance table, then a table per cell and pass."""
    blocks = ["# Benchmark", _surroundings(report)]
    if report.verdicts:
        blocks += ["## What to reach", _verdicts(report.verdicts)]
    for title, group in groupby(report.measured, lambda measured: measured.case.title):
        blocks += [f"## {title}", *_measured(list(group))]
    return "\n\n".join(blocks) + "\n"


def _surroundings(report: Report) -> str:
    """Machine, versions, revision and date as a list."""
    at = report.machine
    revision = "unknown"
    if report.commit:
        revision = report.commit["id"][:12] + (" and changes" if report.commit["dirty"] else "")
    lines = [
        f"{at['processor']}, {counted(at['cores'], 'core')}, {counted(at['threads'], 'thread')}, "
        f"{at['vectors']}, load {at['load']} before",
        f"compiler: {at['compiler'] or 'none'}",
        ", ".join(f"{name} {version}" for name, version in report.versions.items()),
        f"seqnets at {revision}, {report.date}",
    ]
    if at["gpu"]:
        lines.insert(
            0, f"{at['gpu']}, driver {at['driver']}, CUDA {at['cuda']}, cuDNN {at['cudnn']}"
        )
    return "\n".join(f"- {line}" for line in lines)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    return _table(
        ["what", "against", "asked", "mean", "worst", "where", ""],
        [[v.what, v.against, *v.cells(), v.worst_case, v.summary()] for v in verdicts],
    )


def _measured(group: Sequence[Measured]) -> list[str]:
    """The table of cases with the same title and, below it, who was not timed."""
    rows = []
    for measured in group:
        case = f"**{measured.case.sizes}**"
        for row in measured.rows:
            rows.append([case, row.label, *row.cells()])
            case = ""
    columns = list(zip(["", "", *HEADINGS], *rows, strict=True))
    used = [column for index, column in enumerate(columns) if index < 2 or any(column[1:])]
    headings, *cells = zip(*used, strict=True)
    reasons = dict.fromkeys(reason for measured in group for reason in measured.reasons())
    lines = [f"- {reason}" for reason in reasons]
    return [_table(headings, cells, left=2), *(["\n".join(lines)] if lines else [])]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int | None = None) -> str:
    """A Markdown table, with its first ``left`` or all columns aligned to the left."""
    left = len(headings) if left is None else left
    alignment = ["---"] * left + ["---:"] * (len(headings) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, alignment, *rows])


def _rounded(number: float, digits: int) -> str:
    """Format a number with some significant digits, without an exponent."""
    return f"{float(f'{number:.{digits}g}'):.12g}"
