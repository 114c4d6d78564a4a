"""What ended a run, and the commands that may follow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from seqnets.cli import report
from seqnets.cli.options import Config
from seqnets.cli.runs import place_of
from seqnets.training import LanguageModelling, Objective
from seqnets.training.callbacks import EarlyStopping
from seqnets.training.loggers import writer_of

_MIN_PATIENCE = 5
"""Minimum patience, in validations, suggested for resuming a run that stopped early."""


def resuming(folder: Path, arguments: Sequence[str]) -> str:
    """The command that resumes a run, with these arguments too."""
    return report.command("seqnets", "train", report.path_override("resume", folder), *arguments)


def follow_ups(
    folder: Path,
    kept: Path | None,
    trainer: Trainer,
    objective: Objective,
    longer: Sequence[str],
    also: Sequence[str],
) -> dict[str, str]:
    """The commands that may follow a finished run, by what they do.

    Args:
        folder: The run's folder.
        kept: The checkpoint of the model to use; None if there is none.
        trainer: The run's trainer.
        objective: What the model was trained for.
        longer: Overrides that extend the run.
        also: Arguments that all commands on this run need too.
    """
    commands = {}
    if writer_of(trainer) is not None:
        all_runs = report.shown(folder.parent.parent)
        commands["see the curves"] = report.command("tensorboard", "--logdir", all_runs)
    if kept is None:
        return commands
    checkpoint = report.path_override("checkpoint", place_of(kept))

    def of_model(verb: str, *arguments: str) -> str:
        return report.command("seqnets", verb, checkpoint, *arguments, *also)

    if isinstance(objective, LanguageModelling):
        commands["generate text"] = of_model("generate", "temperature=0.8")
    elif type(objective).rows is not Objective.rows:
        commands["write predictions"] = of_model("predict")
    commands["score the model"] = of_model("evaluate")
    commands["train for as long again"] = resuming(folder, [*longer, *also])
    return commands


def early_stopping(callbacks: Mapping[str, Callback]) -> tuple[str, EarlyStopping] | None:
    """The config name and callback of early stopping, if it ended the run."""
    stopping = ((name, c) for name, c in callbacks.items() if isinstance(c, EarlyStopping))
    return next(((name, c) for name, c in stopping if c.reason is not None), None)


def limit_reached(trainer: Trainer) -> str:
    """Describe the limit that ended a run: "step 604 of trainer.max_steps=100"."""
    reached = (
        f"{unit} {done} of trainer.max_{unit}s={limit}"
        for unit, done, limit in _limits(trainer)
        if done >= limit >= 0
    )
    return next(reached, "trainer.max_time is over")


def extended_limits(
    options: Config, trainer: Trainer, early: tuple[str, EarlyStopping] | None, kept: Config
) -> list[str]:
    """Overrides that extend a finished run by its original length.

    Args:
        options: The run's configuration.
        trainer: Its trainer.
        early: What stopped it early, if anything did.
        kept: The trainer's options in its checkpoint, which a run without steps has not written.
    """
    longer = [
        f"trainer.max_{unit}s={-1 if limit < 0 else max(done, limit) + max(1, limit)}"
        for unit, done, limit in _limits(trainer)
        if limit >= 0 or (kept.get(f"max_{unit}s") or -1) >= 0
    ]
    if options["trainer"].get("max_time"):
        longer.append("trainer.max_time=null")
    if early is not None:
        name, callback = early
        patience = callback.wait_count + max(_MIN_PATIENCE, callback.patience)
        longer.append(f"callbacks.{name}.patience={patience}")
    return longer


def _limits(trainer: Trainer) -> Iterator[tuple[str, int, int]]:
    """Yield each limit of a run: unit, progress and maximum, -1 for no limit."""
    for unit, done in (("epoch", trainer.current_epoch), ("step", trainer.global_step)):
        limit = getattr(trainer, f"max_{unit}s")
        yield unit, done, -1 if limit is None else limit
