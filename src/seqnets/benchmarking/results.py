"""What was measured, on which machine, with which code: as JSON and as Markdown."""

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
"""What the columns of numbers are called."""


@dataclass(frozen=True)
class Row:
    """A contestant's figures.

    Attributes:
        name: Who it is.
        ms: Median time of the pass.
        iqr: Between the quartiles, in ms.
        rounds: How often it was measured.
        vs_torch: torch.nn's time over this one: above 1 is faster; None if that was not timed.
        vs_floor: This time over that of the matrix products alone; None if that was not timed.
        steps_per_s: B·T per second.
        mib: Peak memory of a training pass; None if it was not measured.
        first_ms: The first run, which compiles what there is to compile; None if it was not timed.
        note: What one should know of the row.
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
        """The name, with its note."""
        return f"{self.name} ({self.note})" if self.note else self.name

    def cells(self) -> tuple[str, ...]:
        """The figures as text, for :data:`HEADINGS`."""
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
    """A case, with everybody's figures.

    Attributes:
        case: What was timed.
        rows: Figures, the floor's first.
        refused: Why what is there was not timed: it disagrees with the reference, or failed.
        absent: Why others did not take part.
    """

    case: Case
    rows: list[Row]
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def row(self, name: str) -> Row | None:
        """Somebody's figures, if there are any."""
        return next((row for row in self.rows if row.name == name), None)

    def notes(self) -> list[str]:
        """What one should know of rows."""
        return [f"{row.name}: {row.note}" for row in self.rows if row.note]

    def reasons(self) -> list[str]:
        """A line for each who was not timed."""
        refused = [f"{name}: refused, not timed: {why}" for name, why in self.refused.items()]
        return refused + [f"{name}: {why}" for name, why in self.absent.items()]


@dataclass
class Report:
    """A whole run.

    Attributes:
        options: What was asked for.
        machine: Processor, cores, threads, compiler, GPU and its driver.
        versions: Of Python and of the packages that ran.
        commit: The revision of seqnets, and whether its files differ from it; None if unknown.
        date: When it began, in UTC.
        measured: The cases.
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
        """Write it as JSON."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, ensure_ascii=False)
        with atomic(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: It is no such file.
        """
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            if read.pop("format") != _FORMAT:
                raise ValueError("it has another format")
            measured = [
                Measured(
                    Case(**entry.pop("case")), [Row(**row) for row in entry.pop("rows")], **entry
                )
                for entry in read.pop("measured")
            ]
            verdicts = [Verdict(**entry) for entry in read.pop("verdicts")]
            return cls(measured=measured, verdicts=verdicts, **read)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Benchmark {path}: cannot be read: {error}.\n"
                f"  Expected a file that `seqnets benchmark` wrote."
            ) from error


def markdown(report: Report) -> str:
    """The page of a run: the acceptance table, then a table for each cell and pass."""
    blocks = ["# Benchmark", _surroundings(report)]
    if report.verdicts:
        blocks += ["## What to reach", _verdicts(report.verdicts)]
    for title, group in groupby(report.measured, lambda measured: measured.case.title):
        blocks += [f"## {title}", *_measured(list(group))]
    return "\n\n".join(blocks) + "\n"


def _surroundings(report: Report) -> str:
    at = report.machine
    revision = "unknown"
    if report.commit:
        revision = report.commit["id"][:12] + (" and changes" if report.commit["dirty"] else "")
    lines = [
        f"{at['processor']}, {counted(at['cores'], 'core')}, {counted(at['threads'], 'thread')}, "
        f"{at['vectors']}, "
        f"load {at['load']} before",
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
    rows = []
    for measured in group:
        case = f"**{measured.case.sizes}**"
        for row in measured.rows:
            rows.append([case, row.label, *row.cells()])
            case = ""
    columns = list(zip(["", "", *HEADINGS], *rows, strict=True))
    filled = [column for place, column in enumerate(columns) if place < 2 or any(column[1:])]
    headings, *shown = zip(*filled, strict=True)
    reasons = dict.fromkeys(reason for measured in group for reason in measured.reasons())
    lines = [f"- {reason}" for reason in reasons]
    return [_table(headings, shown, left=2), *(["\n".join(lines)] if lines else [])]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 99) -> str:
    marks = ["---" if place < left else "---:" for place in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, marks, *rows])


def _rounded(number: float, digits: int) -> str:
    """So many digits that count, without an exponent."""
    return f"{float(f'{number:.{digits}g}'):.12g}"
