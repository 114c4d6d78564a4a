"""``seqnets benchmark``: check cells, then time them beside others and the hardware's limit."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from seqnets.atomic import named_by
from seqnets.benchmarking import (
    Case,
    Limit,
    Measured,
    Report,
    Settings,
    Verdict,
    cases_of,
    judge,
    markdown,
    measure,
    plot,
)
from seqnets.benchmarking.ahead import compile_ahead
from seqnets.benchmarking.cases import SIZES, listed
from seqnets.benchmarking.picture import check_plotting
from seqnets.benchmarking.precision import DTYPES
from seqnets.benchmarking.results import HEADINGS
from seqnets.checks import is_number, is_whole
from seqnets.cli import listing, report
from seqnets.cli.arguments import search_path
from seqnets.cli.build import build, option_errors
from seqnets.cli.console import terminal
from seqnets.cli.lines import hanging
from seqnets.cli.names import UsageError, near
from seqnets.cli.options import Config, check_truths
from seqnets.errors import ConfigError, DataError, DeviceError, SeqnetsError

_CELLS = "model/cell"


def run(options: Config, *, choices: Mapping[str, Any], folders: Sequence[Path], **_: Any) -> None:
    """Time all cases, and write figures, a table and a picture.

    Args:
        options: The verb's configuration.
        choices: The chosen option of each config group.
        folders: Those of the user's own configurations.

    Raises:
        SeqnetsError: An option is invalid, a cell cannot be made, a file cannot be written, or
            matplotlib is missing.
    """
    names = list(listing.options(_CELLS, folders))
    nodes = {}
    if chosen := choices.get(_CELLS):
        if options["cells"] is not None:
            raise UsageError(f"cells: came with {_CELLS}, expected one of the two.")
        options["cells"] = [chosen]
        nodes = {chosen: options["model"]["cell"]}
    settings = _settings(options)
    given = {key: options[key] for key in ("cells", "pass", "dtype", "rows", *SIZES)}
    cases = cases_of(options["grid"], names, given)
    if settings.device.type == "cpu" and any(case.dtype == "tf32" for case in cases):
        raise UsageError("dtype: is tf32, which only GPUs have, expected float32 on the CPU.")
    limits = [Limit.read(entry, names) for entry in listed(options["limits"])]
    makers = _makers(cases, nodes, folders, options["allow"])
    if options["plot"]:
        check_plotting()
    output = _output(options, choices.get("suite") or "own")

    console = terminal()
    with _threads(options["threads"]):
        kept = {k: v for k, v in options.items() if k not in ("grid", "limits")}
        found = Report({"suite": choices.get("suite"), **kept})
        _warn_if_busy(found.machine, console)
        if settings.device.type == "cuda" and len(cases) > 1:
            with console.status("compiling kernels"):
                compile_ahead(cases, makers)
        gc.freeze()  # so that collections between cases skip what exists already
        told: set[str] = set()
        for case in _in_time(_followed(cases, console), options["time_limit"]):
            found.measured.append(measure(case, makers[case.cell], settings))
            _show(found.measured[-1], console, told)
            found.save(output)  # so that a command that is stopped keeps what it measured
    if left := len(cases) - len(found.measured):
        console.print(f"time_limit: {left} of {len(cases)} cases were not begun.\n")
    found.verdicts = [judge(limit, found.measured) for limit in limits]
    found.save(output)
    _finish(found, output, options["plot"], console)


def _makers(
    cases: Sequence[Case],
    nodes: Mapping[str, Config],
    folders: Sequence[Path],
    allow: Sequence[str],
) -> dict[str, Any]:
    """The factory of each cell, tried out with each size, so that errors come before any timing."""
    names = dict.fromkeys(case.cell for case in cases)
    makers = {name: _maker(name, nodes, folders, allow) for name in names}
    with torch.device("meta"):
        for cell, I, H in dict.fromkeys((case.cell, case.I, case.H) for case in cases):
            with option_errors(nodes.get(cell, {}), _CELLS.replace("/", ".")):
                try:
                    makers[cell](I, H)
                except RuntimeError as error:
                    if isinstance(error, SeqnetsError):
                        raise  # torch's are of cells that read values: "meta" has none
    return makers


def _maker(
    name: str, nodes: Mapping[str, Config], folders: Sequence[Path], allow: Sequence[str]
) -> Any:
    """The factory of a cell: as the command line configures it, else as its file does."""
    node = nodes.get(name)
    if node is None:
        composed = hydra.compose("benchmark", [f"{_CELLS}={name}", search_path(folders)])
        loaded: Any = OmegaConf.to_container(composed.model.cell, resolve=True)
        node = loaded
    return build({**node, "_partial_": True}, allow, f"model.cell ({name})")


def _settings(options: Config) -> Settings:
    threads = options["threads"]
    if threads is not None and (not is_whole(threads) or threads < 1):
        raise UsageError(f"threads: is {threads!r}, expected a positive integer.")
    check_truths(**{key: options[key] for key in ("compiled", "memory", "plot")})
    budget, limit, dtypes = options["budget"], options["time_limit"], options["dtype"] or []
    for key, seconds in (("budget", budget), ("time_limit", limit)):
        wrong = not is_number(seconds) or not seconds > 0
        if wrong and (key == "budget" or seconds is not None):
            raise UsageError(f"{key}: is {seconds!r}, expected seconds, more than 0.")
    for dtype in dtypes if isinstance(dtypes, list) else [dtypes]:
        if dtype not in DTYPES:
            raise UsageError(f"dtype: is {dtype!r}.\n  {near(str(dtype), DTYPES)}")
    if options["device"] not in ("cpu", "cuda"):
        raise UsageError(f"device: is {options['device']!r}, expected cpu or cuda.")
    if options["device"] == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device: is 'cuda', expected 'cpu', since torch finds no GPU.")
    return Settings(
        budget=budget,
        compiled=options["compiled"],
        memory=options["memory"],
        device=torch.device(options["device"]),
    )


def _output(options: Config, suite: str) -> Path:
    """The JSON file to write, created if it does not exist.

    Files of an earlier benchmark of this name are overwritten, others never.
    """
    named = (
        options["output"] or f"benchmarks/results/{suite}_{datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    )
    output = Path(str(named)).expanduser()
    if output.suffix != ".json":
        raise UsageError(f"output: is {str(output)!r}, expected a name that ends with .json.")
    there = [path for path in _files(output) if path.exists()]
    if there and not _is_report(output):
        raise ConfigError(
            f"output: {report.shown(there[0])} exists already and belongs to no benchmark, "
            "expected a new file.\n  Name another with output=FILE."
        )
    with named_by("output", output):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    return output


def _files(output: Path) -> tuple[Path, Path, Path]:
    """The files of figures, table and picture."""
    return output, output.with_suffix(".md"), output.with_suffix(".png")


def _is_report(path: Path) -> bool:
    """Whether this command wrote a file; a command that was stopped early leaves it empty."""
    if path.exists() and path.stat().st_size == 0:
        return True
    try:
        Report.load(path)
    except DataError:
        return False
    return True


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Have torch use this many threads, or as many as before if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_time(cases: Iterable[Case], seconds: float | None) -> Iterator[Case]:
    """Yield cases until so many seconds have passed; all if None."""
    begun = monotonic()
    for case in cases:
        if seconds is not None and monotonic() - begun > seconds:
            return
        yield case


def _followed(cases: Sequence[Case], console: Console) -> Iterator[Case]:
    """Yield the cases, while a line on the terminal says which one is being timed."""
    columns = SpinnerColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=str(case))
            yield case
            progress.advance(task)


def _warn_if_busy(machine: Mapping[str, Any], console: Console) -> None:
    load, cores = machine["load"], machine["cores"]
    if load is not None and load > 0.5 * cores:
        console.print(
            f"This machine is busy (load {load:g} on {cores} cores): timings will be unreliable.\n",
            style="yellow",
        )


def _show(measured: Measured, console: Console, told: set[str]) -> None:
    """Print a case's figures, and below them those notes that have not been printed before."""
    title = str(measured.case)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("", no_wrap=True)
    columns = list(zip(*(row.cells() for row in measured.rows), strict=True))
    shown = [place for place, column in enumerate(columns) if any(column)]
    for place in shown:
        table.add_column(HEADINGS[place], justify="right", no_wrap=True)
    for row in measured.rows:
        style = "bold" if row.name in ("auto", "stream") else ""
        table.add_row(row.name, *(row.cells()[place] for place in shown), style=style)
    console.print(table)
    for line in [*measured.notes(), *measured.reasons()]:
        if line not in told or line.startswith(("auto", "stream")):
            console.print(hanging(f"  {line}", 4), soft_wrap=True)
    told.update(measured.notes(), measured.reasons())
    console.print()


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    """A table of the suite's limits, and whether they were met."""
    table = Table(title="What to reach", box=box.SIMPLE_HEAD)
    for heading in ("", "against", "asked", "mean", "worst", "where", ""):
        table.add_column(heading)
    styles = {True: "green", False: "red", None: "dim"}
    for verdict in verdicts:
        end = Text(verdict.summary(), styles[verdict.met])
        table.add_row(verdict.what, verdict.against, *verdict.cells(), verdict.worst_case, end)
    return table


def _finish(found: Report, output: Path, plotted: bool, console: Console) -> None:
    """Print the verdicts, write the table and the picture, and name all files."""
    if found.verdicts:
        console.print(_verdicts(found.verdicts))
    _, page, picture = _files(output)
    page.write_text(markdown(found), encoding="utf-8")
    files = [output, page]
    if plotted and plot(found.measured, picture):
        files.append(picture)
    elif plotted:
        console.print("No picture: no two cases differ only in B, T or H.")
    report.show(console, "Written:", "\n".join(report.shown(path) for path in files))
