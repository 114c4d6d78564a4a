"""The table of what each job of a sweep reached."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from seqnets.cli.sweep import Job, Trained
from seqnets.errors import counted
from seqnets.insight.rounded import rounded

_SEED = "seed"


def show(console: Console, jobs: Mapping[int, Job]) -> None:
    """Print a table of the jobs' results, the best one marked, and one of means over seeds.

    Below the table stands why jobs failed, and the folders if it would be too wide with them.
    """
    table = _table(jobs, folders=True)
    wide = console.options.update(max_width=10_000)
    beside = Measurement.get(console, wide, table).maximum <= console.width
    console.print()
    console.print(table if beside else _table(jobs, folders=False))
    for number, job in jobs.items():
        if job.folder is not None and not beside:
            console.print(f"#{number} {job.folder}", soft_wrap=True)
        if job.failed is not None:
            console.print(f"#{number} {job.failed.reason}", soft_wrap=True)
    means = _means(jobs.values())
    if means is not None:
        console.print()
        console.print(means)


def _table(jobs: Mapping[int, Job], folders: bool) -> Table:
    """A row for each job: its own values, its size if they differ in it, and its scores."""
    metrics = {(job.trained.metric, job.trained.mode) for job in jobs.values() if job.trained}
    title = f"Sweep of {counted(len(jobs), 'job')}"
    best = None
    if len(metrics) == 1:
        ((metric, mode),) = metrics
        best = _best(jobs, mode)
        way = "higher" if mode == "max" else "lower"
        title = f"{title}: {metric.replace('_', ' ')}, {way} is better"
    keys = list(dict.fromkeys(key for job in jobs.values() for key in job.swept))
    sized = len({job.trained.parameters for job in jobs.values() if job.trained}) > 1
    table = Table(title=title, caption=None if best is None else "* the best")
    table.add_column("#", no_wrap=True)
    for key in keys:
        table.add_column(_short(key, keys), overflow="fold")
    for name in (*["parameters"] * sized, "val", "test"):
        table.add_column(name, justify="right", no_wrap=True)
    if folders:
        table.add_column("folder", no_wrap=True)
    for number, job in jobs.items():
        marked = number == best
        row = [f"{number} *" if marked else str(number)]
        row += [_brief(job.swept.get(key, "")) for key in keys]
        row += [f"{job.trained.parameters:,}" if job.trained else ""] * sized
        row += _figures(job, alike=len(metrics) == 1)
        row += [job.folder or ""] * folders
        table.add_row(*row, style="bold" if marked else None)
    return table


def _means(jobs: Iterable[Job]) -> Table | None:
    """Means over jobs that differ only in their seeds, with deviations; None without such jobs."""
    alike: dict[tuple[tuple[str, str], ...], list[Trained]] = {}
    for swept, trained, _ in jobs:
        if trained is not None and _SEED in swept:
            others = tuple((key, value) for key, value in swept.items() if key != _SEED)
            alike.setdefault(others, []).append(trained)
    if max(map(len, alike.values()), default=0) < 2:
        return None
    keys = list(dict.fromkeys(key for others in alike for key, _ in others))
    several = len({trained.metric for found in alike.values() for trained in found}) > 1
    table = Table(title="Over seeds: mean ± standard deviation")
    for key in keys:
        table.add_column(_short(key, keys), overflow="fold")
    for name in ("seeds", "val", "test"):
        table.add_column(name, justify="right", no_wrap=True)
    for others, found in alike.items():
        values = [_brief(dict(others).get(key, "")) for key in keys]
        name = f"{found[0].metric.replace('_', ' ')} " if several else ""
        figures = [_spread([t.score for t in found]), _spread([t.test for t in found])]
        table.add_row(*values, str(len(found)), *(f"{name}{figure}" for figure in figures))
    return table


def _spread(figures: Sequence[float | None]) -> str:
    """The mean and, of several figures, the standard deviation; "none" if one is missing."""
    there = [figure for figure in figures if figure is not None]
    if len(there) < len(figures):
        return "none"
    mean = rounded(statistics.mean(there))
    if len(there) == 1:
        return mean
    deviation = statistics.stdev(there)
    return f"{mean} ± {deviation:,.0f}" if deviation >= 9.95 else f"{mean} ± {deviation:#.2g}"


def _best(jobs: Mapping[int, Job], mode: str) -> int | None:
    """The number of the first job with the best score; None without scores."""
    scores = {n: job.trained.score for n, job in jobs.items() if job.trained}
    there = {number: score for number, score in scores.items() if score is not None}
    choose = max if mode == "max" else min
    return choose(there, key=there.__getitem__, default=None)


def _figures(job: Job, alike: bool) -> list[str]:
    """A job's cells of "val" and "test"; named by the metric unless all jobs have the same."""
    trained = job.trained
    if trained is None:
        return ["", "stopped" if job.failed and job.failed.stopped else "failed"]
    name = "" if alike else f"{trained.metric.replace('_', ' ')} "
    score = "none" if trained.score is None else f"{name}{rounded(trained.score)}"
    if trained.test is not None:
        return [score, f"{name}{rounded(trained.test)}"]
    return [score, "stopped" if trained.code else "pruned" if trained.pruned else "none"]


def _short(key: str, keys: Sequence[str]) -> str:
    """The last part of a key, or all of it if another key ends alike."""
    last = re.split("[./]", key)[-1]
    alike = [other for other in keys if re.split("[./]", other)[-1] == last]
    return last if len(alike) == 1 else key


def _brief(value: str) -> str:
    """A value as given, but numbers of many digits rounded to four."""
    number = re.fullmatch(r"-?\d*\.\d{5,}(e[+-]?\d+)?", value)
    return f"{float(value):.4g}" if number else value
