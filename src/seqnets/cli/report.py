"""What commands print: figures in a table, titled passages, and commands to continue with."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqnets.insight.rounded import rounded
from seqnets.insight.visible import visible
from seqnets.quoting import override, shell
from seqnets.training import Objective

_WIDE = 50
"""The width of a table, in columns, from which its other figures may take several lines."""


def figures(trainer: Trainer, part: str) -> dict[str, float]:
    """The metrics last logged by a trainer for one part, by name."""
    logged = {name.partition("/"): float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value for (where, _, name), value in logged.items() if where == part}


def figures_table(
    what: str,
    figures: Mapping[str, float],
    objective: Objective,
    baselines: Mapping[str, float],
    published: Mapping[str, Any] | None = None,
) -> Table:
    """A table of metrics, compared with baselines in the main metric.

    Args:
        what: What was scored, such as "the test part".
        figures: Metrics by name.
        objective: Defines the main metric and its mode.
        baselines: Scores of baselines in the main metric.
        published: A published score: its "source", "metric" and "value".
    """
    metric = objective.metric
    reached = dict(baselines)
    if published is not None and published["metric"] == metric:
        reached[f"published: {published['source']}"] = published["value"]
    title = f"Results on {what}"
    others = [f"{name}={rounded(value)}" for name, value in figures.items() if name != metric]
    caption = ", ".join(other.replace(" ", "\N{NO-BREAK SPACE}") for other in others)
    table = Table(title=title, caption=caption, min_width=max(len(title), min(len(caption), _WIDE)))
    table.add_column()
    table.add_column(metric.replace("_", " "), justify="right")
    if reached:
        table.add_column()
    ours = figures[metric]
    table.add_row("this model", rounded(ours), style="bold")
    for name, value in reached.items():
        above = ours > value if objective.mode == "max" else ours < value
        better = above and not math.isclose(ours, value, rel_tol=1e-6)  # one of them is float32
        verdict = ("better", "green") if better else ("not better", "red")
        table.add_row(name, rounded(value), Text.assemble("this model is ", verdict))
    return table


def show(console: Console, title: str, text: str) -> None:
    """Print a titled passage or list of commands."""
    console.print(f"\n{title}", style="bold")
    console.print(visible(text) if console.is_terminal else text, soft_wrap=True)


def shown(path: Path) -> str:
    """Format a path, relative to the working directory if it lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def command(program: str, *arguments: str) -> str:
    """A command line that calls an installed program, quoted for the shell."""
    return " ".join([_called(program), *map(shell, arguments)])


def _called(program: str) -> str:
    """How to call an installed program: by path if it is not the one on PATH."""
    beside = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if not beside.exists() or (found is not None and beside.samefile(found)):
        return program
    return shell(shown(beside))


def path_override(key: str, path: Path) -> str:
    """An override by a path, as :func:`shown` formats it."""
    return override(key, shown(path))
