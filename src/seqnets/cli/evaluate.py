"""``seqnets evaluate``: score a checkpoint on its dataset, or on one like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from seqnets.cli import report, runs
from seqnets.cli.assemble import Config, check_device, make_data, make_module, make_trainer, plain
from seqnets.cli.console import quiet
from seqnets.cli.names import UsageError, near
from seqnets.errors import CheckpointError
from seqnets.training import load_checkpoint, load_weights

_PARTS = ("val", "test")


def from_checkpoint(given: Mapping[str, Any], own: Config) -> tuple[Config, Config] | None:
    """The verb's configuration with the checkpoint's dataset in it."""
    if given.get("checkpoint") is None:
        return None
    path = runs.checkpoint_at(str(given["checkpoint"]), "best.ckpt")
    return {**own, "dataset": runs.saved_config(path)["dataset"]}, {}


def run(config: DictConfig, choices: Mapping[str, Any], command: str) -> int:
    """Print the figures of a part of the dataset.

    Raises:
        SeqnetsError: Something is wrong with the options, the data or the checkpoint, or the data
            have another vocabulary or other classes than the model knows.
    """
    options = plain(config)
    if options["part"] not in _PARTS:
        raise UsageError(f"part: is {options['part']!r}.\n  {near(options['part'], _PARTS)}")
    check_device(options["trainer"])
    path = runs.checkpoint_at(options["checkpoint"], "best.ckpt")
    checkpoint = load_checkpoint(path)
    card = checkpoint["seqnets"]
    options["dataset"] = {**card["config"]["dataset"], **options["dataset"]}
    with quiet():
        trainer = make_trainer(options, options["allow"], [], logger=False)
        data = make_data(options, options["allow"])
        _check_data(card["data"], data.describe(), path)
        saved = {**card["config"], "dataset": options["dataset"]}
        module = make_module(saved, card["data"], options["allow"])
        load_weights(module, checkpoint, path)
        score = trainer.test if options["part"] == "test" else trainer.validate
        score(module, data, verbose=False)
    figures = report.figures(trainer, options["part"])
    rivals = data.baselines() if options["part"] == "test" else {}
    if trainer.is_global_zero:
        table = report.figures_table(options["part"], figures, module.objective, rivals)
        Console().print(table)
    return 0


def _check_data(known: Config, found: Config, path: Path) -> None:
    """Raise CheckpointError unless tokens, classes and features are those of the training data."""
    for what in ("unit", "vocabulary", "labels", "sizes"):
        old, new = known[what], found[what]
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            lost = [entry for entry in new if entry not in set(old)]
            named = f" ({', '.join(map(repr, lost[:5]))} is unknown)" if lost else ""
            detail = f"{len(new)} entries, expected the model's {len(old)}{named}"
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
