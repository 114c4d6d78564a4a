"""``seqnets predict``: write a model's predictions for new data, or a part of its dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from seqnets.cli import report, standard_input
from seqnets.cli.console import quiet, terminal
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config, check_filled, check_part
from seqnets.cli.predictions import STDOUT, SUFFIXES, check_target, write_rows
from seqnets.cli.runs import place_of
from seqnets.cli.trained import (
    dataset_of,
    find_checkpoint,
    load_data,
    load_module,
    new_data,
    with_its_task,
)
from seqnets.cli.trainers import make_trainer
from seqnets.datasets.loader import Loader
from seqnets.errors import counted
from seqnets.training import Row, SequenceModule
from seqnets.training.predict import as_in_file, predict
from seqnets.typing import Batch

from_checkpoint = with_its_task


def run(options: Config, *, also: Sequence[str], **_: Any) -> None:
    """Run the model and write its predictions as the objective's rows.

    Args:
        options: The verb's configuration.
        also: Arguments that a command which scores the predictions needs too.

    Raises:
        SeqnetsError: An option, the data or the checkpoint are faulty, the file exists already, or
            the objective writes no predictions.
    """
    _check(options)
    path = find_checkpoint(options["checkpoint"])
    with quiet():
        trainer = make_trainer(options, options["allow"], [], logger=False)
        module = load_module(path, options["allow"], options["objective"])
        _check_apart(module, options)
        with _file(module, options) as file:
            loader = _loader(module, options, path, file)
            rows = _rows(module, _limited(loader, trainer, options), trainer)
            known = module.card["data"]
            classes = known.get("labels") or range(known["sizes"].get("num_classes", 0))
            count, targets = write_rows(as_in_file(rows, loader), options["to"], classes)
    _tell(options, count, targets, path, also)


def _check(options: Config) -> None:
    """Raise for invalid options before the model runs."""
    check_part(options["part"])
    for key in ("to", "input"):
        if not isinstance(options[key], str) and not (key == "input" and options[key] is None):
            raise UsageError(f"{key}: is {options[key]!r}, expected a file.")
    check_filled("file", input=options["input"])
    check_target(options["to"], options["overwrite"])
    if options["trainer"].get("devices", 1) not in (1, "auto"):
        raise UsageError(
            f"trainer.devices: is {options['trainer']['devices']}, expected 1.\n"
            "  One process writes all rows, in their order."
        )


def _check_apart(module: SequenceModule, options: Config) -> None:
    """Raise UsageError if predictions would overwrite a file that data are read from."""
    to = Path(options["to"]).expanduser()
    dataset = dataset_of(module, options["dataset"])
    of_dataset = (value for key, value in dataset.items() if key.endswith("path"))
    given = [path for path in (options["input"], *of_dataset) if isinstance(path, str)]
    for read in (Path(path).expanduser() for path in given):
        if to.exists() and read.exists() and to.samefile(read):
            raise UsageError(
                f"to: {options['to']} is a file that data are read from, expected another.\n"
                "  Name it with to=FILE."
            )


def _file(module: SequenceModule, options: Config) -> AbstractContextManager[Path | None]:
    """The file of new data, if there is one."""
    given = options["input"]
    if given == standard_input.NAME:
        return standard_input.spooled(dataset_of(module, options["dataset"]))
    return nullcontext(None if given is None else Path(given).expanduser())


def _loader(module: SequenceModule, options: Config, path: Path, file: Path | None) -> Loader:
    """The batches of a part in its order, or of a file, for which no training data are read."""
    changes, allow = options["dataset"], options["allow"]
    if file is None:
        return load_data(module, path, changes, allow).loader(options["part"]).in_order()
    folder = Path() if options["input"] == standard_input.NAME else None
    return new_data(module, file, changes, allow, folder)


def _limited(loader: Loader, trainer: Trainer, options: Config) -> Iterable[Batch]:
    """As many batches as the trainer's limit allows; trainer=debug allows a few."""
    name = "predict" if options["input"] is not None else options["part"]
    limit = getattr(trainer, f"limit_{name}_batches")
    return islice(loader, limit if isinstance(limit, int) else int(limit * len(loader)))


def _rows(module: SequenceModule, batches: Iterable[Batch], trainer: Trainer) -> Iterator[Row]:
    """The model's predictions, computed on the trainer's device in its precision."""
    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    model = precision.convert_module(module.model.to(device))
    with precision.forward_context():
        yield from predict(
            model,
            module.objective,
            map(precision.convert_input, batches),
            module.card["data"],
            device,
        )


def _tell(options: Config, count: int, targets: int, path: Path, also: Sequence[str]) -> None:
    to, given = options["to"], options["input"]
    if given == standard_input.NAME:
        what = "standard input"
    else:
        what = f"the {options['part']} part" if given is None else report.shown(Path(given))
    where = "the standard output" if to == STDOUT else report.shown(Path(to))
    console = terminal(stderr=to == STDOUT)
    console.print(f"{counted(count, 'row')} of {what} written to {where}.", soft_wrap=True)
    if targets and Path(to).suffix.lower() in SUFFIXES:
        checkpoint = report.path_override("checkpoint", place_of(path))
        predictions = report.path_override("predictions", Path(to))
        line = report.command("seqnets", "evaluate", checkpoint, predictions, *also)
        report.show(console, "To score them:", line)
