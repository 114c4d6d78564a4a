"""A trained model and its dataset, for the verbs that use one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqnets.cli import runs
from seqnets.cli.assemble import Config, make_data, make_module
from seqnets.datasets import DataModule
from seqnets.errors import CheckpointError
from seqnets.training import SequenceModule, load_checkpoint, load_weights
from seqnets.typing import Known


def with_its_task(given: Mapping[str, Any], own: Config) -> tuple[Config, Config] | None:
    """A verb's configuration with the checkpoint's dataset and objective in it, to be changed.

    It is the verb's ``from_checkpoint``.
    """
    if given.get("checkpoint") is None:
        return None
    path = runs.checkpoint_at(str(given["checkpoint"]), "best.ckpt")
    saved = runs.saved_config(path)
    return {**own, "dataset": saved["dataset"], "objective": saved["objective"]}, {}


def load_module(
    path: Path, allow: Sequence[str], objective: Config | None = None
) -> SequenceModule:
    """Make the model that a checkpoint holds, with its card.

    Args:
        path: The checkpoint.
        allow: Modules of the user's own whose classes it may name.
        objective: What differs from the objective that it was trained for.

    Raises:
        CheckpointError: The file is damaged.
        ConfigError: A class that it names may not be used.
    """
    checkpoint = load_checkpoint(path)
    card = checkpoint["seqnets"]
    config = card["config"]
    changed = {**config, "objective": {**config["objective"], **(objective or {})}}
    module = make_module(changed, card["data"], allow)
    module.card = {"config": config, "data": card["data"]}
    load_weights(module, checkpoint, path)
    return module


def dataset_of(module: SequenceModule, options: Config) -> Config:
    """The checkpoint's dataset as a configuration, with what the options change in it."""
    return {**module.card["config"]["dataset"], **options["dataset"]}


def load_data(module: SequenceModule, options: Config, path: Path) -> DataModule:
    """Read the checkpoint's dataset, or one like it.

    Raises:
        CheckpointError: The data have another vocabulary or other classes than the model knows.
    """
    data = make_data({"dataset": dataset_of(module, options)}, options["allow"])
    _check(module.card["data"], data.describe(), path)
    return data


def _check(known: Known, found: Known, path: Path) -> None:
    """Raise CheckpointError unless tokens, classes and features are those of the training data."""
    for what in ("unit", "vocabulary", "labels", "sizes", "source", "target"):
        old, new = known.get(what), found.get(what)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            lost = [entry for entry in new if entry not in set(old)]
            named = f" ({', '.join(map(repr, lost[:5]))} is unknown)" if lost else ""
            detail = f"{len(new)} entries, expected the model's {len(old)}{named}"
        elif what in ("source", "target"):  # of pairs: how its text becomes tokens
            detail = "other tokens came, expected the model's"
        else:
            detail = f"{new}, expected the model's {old}"
        raise CheckpointError(
            f"Checkpoint {path}: the dataset's {what} is another than the model's: {detail}.\n"
            f"  The model's outputs would mean something else. Use data with the same {what}"
            + (
                ": the text it was trained on, for the vocabulary is made of its training part."
                if what == "vocabulary"
                else "."
            )
        )
