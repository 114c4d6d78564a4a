"""A trained model and its dataset, for the verbs that use one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seqnets.cli import report, runs
from seqnets.cli.assemble import make_data, make_module
from seqnets.cli.build import build
from seqnets.cli.console import terminal, told_if_slow
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config
from seqnets.datasets import DataModule
from seqnets.datasets.loader import Loader
from seqnets.errors import CheckpointError, DataError
from seqnets.training import SequenceModule, load_checkpoint, load_weights
from seqnets.training.checkpoint import OF_TRAINING, check_data

MAY_DIFFER = (*OF_TRAINING, "lookback", "months", "window", "metric", "tokenize")
"""What data that a model is scored on need not share with those that it was trained on."""

_OF_INPUTS = ("audio", "lowercase", "standardise", "time_unit", "time_stamps", "unit")
"""Options of datasets that say how inputs are made, which a model was trained with."""


def with_its_task(given: Mapping[str, Any], own: Config) -> tuple[Config, Config] | None:
    """A verb's configuration with the checkpoint's dataset and objective, for overrides to change.

    This is the ``from_checkpoint`` of verbs that score a model.
    """
    if given.get("checkpoint") is None:
        return None
    path = runs.checkpoint_at(str(given["checkpoint"]), "best.ckpt")
    saved = runs.saved_config(path)
    return {**own, "dataset": saved["dataset"], "objective": saved["objective"]}, {}


def find_checkpoint(named: object) -> Path:
    """The checkpoint that a verb is given; for "last", standard error names it.

    Raises:
        CheckpointError: There is none.
        UsageError: The path is empty.
    """
    path = runs.checkpoint_at(named, "best.ckpt")
    if Path(str(named)).name == "last":
        terminal(stderr=True).print(f"Checkpoint: {report.shown(path)}", soft_wrap=True)
    return path


def load_module(
    path: Path, allow: Sequence[str], objective: Config | None = None
) -> SequenceModule:
    """Make the model that a checkpoint holds, with its card.

    Args:
        path: The checkpoint.
        allow: Modules of the user's own whose classes it may name.
        objective: Options that replace those of the objective it was trained for.

    Raises:
        CheckpointError: The file is damaged, or was written from Python and has no configuration.
        ConfigError: A class that it names may not be used.
    """
    checkpoint = load_checkpoint(path)
    card, config = checkpoint["seqnets"], runs.config_in(checkpoint, path)
    changed = {**config, "objective": {**config["objective"], **(objective or {})}}
    module = make_module(changed, card["data"], allow)
    module.card = {"config": config, "data": card["data"]}
    load_weights(module, checkpoint, path)
    return module


def dataset_of(module: SequenceModule, changes: Config) -> Config:
    """The configuration of the checkpoint's dataset, with some options changed."""
    return {**module.card["config"]["dataset"], **changes}


def new_data(
    module: SequenceModule,
    file: Path,
    changes: Config | None = None,
    allow: Sequence[str] = (),
    folder: Path | None = None,
) -> Loader:
    """The batches of a file of new data; the training data are not needed.

    Args:
        module: The model.
        file: The file.
        changes: Options that replace those of its dataset.
        allow: Modules of the user's own whose classes the dataset may name.
        folder: Where names of files in a table lead from; the table's folder if omitted.

    Raises:
        DataError: The file is malformed, or does not fit what the model was trained on.
        UsageError: An option would make other inputs than in training.
    """
    before, after = module.card["config"]["dataset"], dataset_of(module, changes or {})
    for key in _OF_INPUTS:
        if after.get(key) != before.get(key):
            raise UsageError(
                f"dataset.{key}: differs from that in training, expected it to be left out with "
                "new data.\n  The model's inputs are made from the file as they were in training."
            )
    data: DataModule = build(after, allow, "dataset")
    data.folder_of_new = folder
    with told_if_slow():
        return data.new(file, module.card["data"])


@contextmanager
def moved() -> Iterator[None]:
    """Say, where a checkpoint's data cannot be read, that they may have moved."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"{error}\n  The checkpoint's path is relative to where it was trained, or has moved "
            "since; dataset.path=… and the like name another."
        ) from error


def load_data(
    module: SequenceModule, path: Path, changes: Config | None = None, allow: Sequence[str] = ()
) -> DataModule:
    """Read the checkpoint's dataset, or one like it.

    Args:
        module: The model.
        path: The checkpoint, for errors.
        changes: Options that replace those of its dataset.
        allow: Modules of the user's own whose classes the dataset may name.

    Raises:
        CheckpointError: The data have another vocabulary, other classes, features or scales than
            those that the model knows.
    """
    with moved():
        data = make_data({"dataset": dataset_of(module, changes or {})}, allow)
    try:
        check_data(module.card["data"], data.describe(), path, MAY_DIFFER)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\n  To score a file of new data: `seqnets predict input=FILE`, then "
            "`seqnets evaluate predictions=FILE`."
        ) from error
    return data
