"""``seqnets inspect checkpoint=…``: the inside of a trained model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from seqnets.atomic import atomic
from seqnets.checks import is_whole
from seqnets.cli import report
from seqnets.cli.console import quiet, terminal
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config, check_filled, check_part, check_truths
from seqnets.cli.trained import find_checkpoint, load_data, load_module
from seqnets.datasets.loader import Loader
from seqnets.errors import ConfigError, counted
from seqnets.insight.canvas import new_figure, shortened
from seqnets.insight.fixed_points import KINDS, kinds_of, slowest_of, time_constants
from seqnets.insight.fonts import give_fonts
from seqnets.layers import WatchedLayer, watch_layers
from seqnets.training import SequenceModule
from seqnets.training.callbacks.display import first_rows
from seqnets.training.dynamics import Rest, draw_read, draw_seen, rest_of
from seqnets.typing import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = 8192
"""Time steps, rows times length, beyond which fewer trajectories are drawn."""

_ROWS, _DPI = 32, 130
"""Maximum number of trajectories, and pixels of an inch."""

_TEXT = 500
"""The fewest steps of a text that are read, if it has so many."""


def inspect_model(options: Config) -> None:
    """Draw what a model's layers hold and where they come to rest, and print a table.

    Raises:
        SeqnetsError: An option, the data or the checkpoint are faulty, pictures are there already,
            matplotlib is missing, or the model has no recurrent layer.
    """
    folder = _check(options)
    path = find_checkpoint(options["checkpoint"])
    module = load_module(path, options["allow"], options["objective"])
    data = load_data(module, path, options["dataset"], options["allow"])
    loader = data.loader(options["part"])
    row, sample = _row(loader, options), first_rows(loader.sample(), _ROWS, _STEPS)
    console, known = terminal(), module.card["data"]
    with console.status("Looking into the model ..."):
        seen = _seen(module, row)
        states, units = draw_seen(seen, row, known), draw_read(seen, row, known)
        seen = _seen(module, sample)
        rests = {name: rest_of(layer, sample, known, options["at"]) for name, layer in seen.items()}
    names = dict(zip(seen, shortened(list(seen)), strict=True))
    console.print(_table(seen, rests, names))
    for name, rest in rests.items():
        if rest.refusal is not None:
            console.print(f"{names[name]} has no fixed points: {rest.refusal}.", soft_wrap=True)
    points = {name: figure for name, rest in rests.items() if (figure := rest.draw(known))}
    for kind, figures in (("states", states), ("units", units), ("fixed_points", points)):
        for name, figure in figures.items():
            _save(figure, folder / f"{kind}.{names[name]}.png")
    drawn = counted(len(states) + len(units) + len(points), "picture")
    console.print(f"\n{drawn} written to {report.shown(folder)}.", soft_wrap=True)


def _check(options: Config) -> Path:
    """Raise for invalid options before the model runs; return the folder for pictures."""
    check_part(options["part"])
    if not is_whole(options["row"]) or options["row"] < 0:
        raise UsageError(f"row: is {options['row']!r}, expected a whole number of at least 0.")
    if options["at"] is not None:
        options["at"] = str(options["at"])  # tokens may be digits
    if not isinstance(options["to"], str):
        raise UsageError(f"to: is {options['to']!r}, expected a folder.")
    check_filled(to=options["to"])
    check_truths(overwrite=options["overwrite"])
    folder = Path(options["to"]).expanduser()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"to: is {options['to']!r}, expected a folder that can be written to.")
    if folder.exists() and any(folder.glob("*.png")) and not options["overwrite"]:
        raise ConfigError(
            f"to: {folder} has pictures already, expected a new folder.\n"
            "  Name another with to=FOLDER, or set overwrite=true."
        )
    new_figure()  # raises if matplotlib is missing
    return folder


def _row(loader: Loader, options: Config) -> Batch:
    """The row to look at, alone, counted as `seqnets predict` writes them."""
    left, batches = options["row"], iter(loader.in_order())
    for batch in batches:
        if batch.carry:
            break
        if left < len(batch.x):
            return _continued(batch, batches, itemgetter(slice(left, left + 1)))
        left -= len(batch.x)
    raise UsageError(
        f"row: is {options['row']}, expected a number below {options['row'] - left}, the sequences "
        f"of the {options['part']} part."
    )


def _continued(first: Batch, later: Iterable[Batch], row: Callable[[Tensor], Tensor]) -> Batch:
    """A row of a batch, and, where batches are chunks of a text, what follows it there."""
    chunks = [first.map(row)]
    for batch in later:
        read = sum(chunk.x.shape[1] for chunk in chunks)
        if not batch.carry or batch.lengths is not None or read >= _TEXT:
            break
        chunks.append(batch.map(row))
    if len(chunks) == 1:
        return chunks[0]
    x, y = (torch.cat(parts, 1) for parts in zip(*((c.x, c.y) for c in chunks), strict=True))
    return Batch(x, y)


@torch.no_grad()
def _seen(module: SequenceModule, batch: Batch) -> Mapping[str, WatchedLayer]:
    model = module.model.eval()
    return watch_layers(model, lambda: module.objective(model, batch))


def _save(figure: Figure, path: Path) -> None:
    give_fonts(figure)
    try:
        with quiet(), atomic(path) as partial:
            figure.savefig(partial, dpi=_DPI, format="png")
    except OSError as error:
        raise ConfigError(f"to: {path} cannot be written: {error.strerror}.") from error


def _table(
    seen: Mapping[str, WatchedLayer], rests: Mapping[str, Rest], names: Mapping[str, str]
) -> Table:
    """A line for each layer: how many points of each kind, and how long its memory is there."""
    table = Table(title="Where layers come to rest", box=None, pad_edge=False, header_style="dim")
    for heading in ("layer", "cell"):
        table.add_column(heading, overflow="fold")
    for heading in (*KINDS, "forgets in"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, rest in rests.items():
        cells = [names[name], seen[name].layer.cell.innermost._name]
        table.add_row(*map(Text, [*cells, *_figures(rest)]))
    return table


def _figures(rest: Rest) -> Iterator[str]:
    if rest.points is None:
        yield from "-" * (len(KINDS) + 1)
        return
    eigenvalues, fixed = rest.points.eigenvalues.numpy(), rest.points.fixed.numpy()
    kinds = kinds_of(eigenvalues, fixed)
    yield from (str(kinds.count(kind)) for kind in KINDS)
    slowest = slowest_of(eigenvalues[:1].reshape(-1))
    yield "-" if slowest is None else counted(round(float(time_constants(slowest))), "step")
