"""``seqnets evaluate``: score a checkpoint on its dataset, or a file of predictions."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from seqnets.cli import report
from seqnets.cli.console import quiet, terminal
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config, check_filled, check_part
from seqnets.cli.predictions import score_file
from seqnets.cli.trained import find_checkpoint, load_data, load_module, with_its_task
from seqnets.cli.trainers import make_trainer
from seqnets.datasets import DataModule
from seqnets.datasets.parts import Part
from seqnets.errors import counted
from seqnets.training import SequenceModule
from seqnets.training.dynamic_evaluation import dynamically

from_checkpoint = with_its_task


def run(options: Config, **_: Any) -> None:
    """Print the metrics of a part of the dataset, or of a file of predictions.

    Raises:
        SeqnetsError: An option, the data, the predictions or the checkpoint are faulty, or the
            data have a vocabulary or classes that the model does not know.
    """
    check_part(options["part"])
    check_filled("file", predictions=options["predictions"])
    dynamic = options["dynamic"]
    if not isinstance(dynamic, dict) or dynamic.keys() != {"lr", "decay"}:
        raise UsageError(
            f"dynamic: is {dynamic!r}, expected lr and decay alone.\n"
            "  dynamic.lr=RATE has the model learn."
        )
    path, learns = find_checkpoint(options["checkpoint"]), dynamic["lr"] is not None
    if options["predictions"] is not None:
        if learns:
            raise UsageError(
                "dynamic.lr: got predictions as well, expected one of the two.\n"
                "  A file of predictions is scored without a model that could learn."
            )
        _score_predictions(options, path)
        return
    with quiet():
        gradients = {"inference_mode": False} if learns else {}
        trainer = make_trainer(options, options["allow"], [], logger=False, **gradients)
        _check_limit(trainer, options["part"])
        module = load_module(path, options["allow"], options["objective"])
        data = load_data(module, path, options["dataset"], options["allow"])
        with _learning(module, dynamic, trainer.world_size) if learns else nullcontext():
            figures = _score(trainer, module, data, options["part"])
    baselines = data.baselines() if options["part"] == "test" else {}
    baselines = module.objective.in_metric(baselines, data.describe())
    if trainer.is_global_zero:
        what = f"the {options['part']} part"
        terminal().print(report.figures_table(what, figures, module.objective, baselines))


def _score(
    trainer: Trainer, module: SequenceModule, data: DataModule, part: Part
) -> dict[str, float]:
    """The figures of a part; those of the training part count all of it, in its order."""
    if part == "val":
        trainer.validate(module, data, verbose=False)
        return report.figures(trainer, "val")
    if part == "test":
        trainer.test(module, data, verbose=False)
    else:
        trainer.limit_test_batches = trainer.limit_train_batches
        trainer.test(module, data.loader("train").in_order(), verbose=False)
    return report.figures(trainer, "test")


def _check_limit(trainer: Trainer, part: str) -> None:
    key = f"limit_{part}_batches"
    if not getattr(trainer, key):
        raise UsageError(f"trainer.{key}: is 0, expected at least one batch to score.")


def _learning(
    module: SequenceModule, dynamic: Config, processes: int
) -> AbstractContextManager[None]:
    if processes > 1:
        raise UsageError(
            f"dynamic.lr: got {processes} processes (trainer.devices), expected 1.\n"
            "  Each would learn from its own share of the text."
        )
    return dynamically(module, **dynamic)


def _score_predictions(options: Config, path: Path) -> None:
    """Score a file of predictions; the checkpoint says how, and its model does not run."""
    file = Path(str(options["predictions"])).expanduser()
    module = load_module(path, options["allow"], options["objective"])
    figures, count = score_file(file, module.objective, module.card["data"])
    terminal().print(report.figures_table(counted(count, "row"), figures, module.objective, {}))
