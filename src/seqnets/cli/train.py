"""``seqnets train``: from a composed configuration to a trained, tested, resumable model."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, Checkpoint, LambdaCallback

from seqnets.checks import is_number
from seqnets.cli import report, runs, sweep_rows
from seqnets.cli.assemble import check_sizes, make_data, make_module, make_one
from seqnets.cli.console import quiet, terminal
from seqnets.cli.follow_up import (
    early_stopping,
    extended_limits,
    follow_ups,
    limit_reached,
    resuming,
)
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config, check_filled, check_seed
from seqnets.cli.resumed import check_epochs, check_same_seed, check_same_start
from seqnets.cli.running import FOLDER_VARIABLE, Running, mark_started, open_log, running
from seqnets.cli.stopping import Stopped
from seqnets.cli.sweep import SWEPT_VARIABLE, Trained
from seqnets.cli.trained import moved
from seqnets.cli.trainers import (
    RESERVED,
    check_device,
    check_searches,
    make_loggers,
    make_trainer,
    trainer_errors,
)
from seqnets.errors import ConfigError, counted
from seqnets.training import LanguageModelling, load_checkpoint, load_weights
from seqnets.training.callbacks import (
    Checkpoints,
    Hyperparameters,
    Pruning,
    StopOnSignal,
    TextSamples,
)
from seqnets.training.loggers import finish, purge_after, writer_of

logger = logging.getLogger(__name__)

_C = TypeVar("_C", bound=Callback)


def from_checkpoint(given: Mapping[str, Any], own: Config) -> tuple[Config, Config] | None:
    """The configuration of the run to resume, and replacements for the overrides given.

    Args:
        given: The overrides from the command line.
        own: The verb's configuration file.
    """
    resume = given.get("resume")
    path = runs.find_resume(resume, given.get("output") or own["output"])
    if path is None:
        return None
    started = FOLDER_VARIABLE in os.environ  # by a process that has settled which run "last" is
    is_named = resume not in ("last", "auto") and runs.folder_of(path) is not None
    if "output" in given and is_named and not started:
        raise UsageError(
            "output: came with a run to resume, expected one of the two.\n"
            "  A run goes on in its own folder; resume=last and resume=auto look for it in output."
        )
    saved = runs.saved_config(path)
    # earlier versions let a run have options that are the command's own
    trainer = {name: value for name, value in saved["trainer"].items() if name not in RESERVED}
    ours = {key: own[key] for key in ("allow", "output", "resume")}
    return {**saved, "trainer": trainer, **ours}, {"resume": str(path)}


def run(options: Config, *, choices: Mapping[str, Any], also: Sequence[str], **_: Any) -> Trained:
    """Train, test and report.

    Args:
        options: The verb's configuration.
        choices: The chosen option of each config group.
        also: Arguments that later commands on this run need too.

    Raises:
        SeqnetsError: The configuration, data or checkpoint is faulty, or training diverged.
    """
    for group in ("callbacks", "logger"):  # of an empty list there is no key
        options.setdefault(group, None)
    _check(options)
    # an "auto" that found a run has been replaced by its checkpoint's path
    fresh = options["resume"] in (None, "auto")
    checkpoint = None if fresh else runs.checkpoint_at(options["resume"])
    existing = None if checkpoint is None else runs.folder_of(checkpoint)
    if existing is not None:
        options["output"] = report.shown(existing.parent.parent)  # a resumed run stays where it is
    if options["resume"] == "auto":
        terminal().print("resume=auto: there is no unfinished run, a new one starts.")
    with running(existing, options, choices.get("dataset") or "resumed") as current, quiet():
        with nullcontext() if fresh else moved():
            training, failed = _Training(options, current, also), True
        try:
            trained = training.run(checkpoint)
            failed = False
        finally:
            finish(training.trainer, failed)
        if training.result is not None and training.trainer.is_global_zero:
            # last: resume=auto would answer a run that is stopped before by another
            runs.write_result(training.folder, training.result)
        return trained


def _check(options: Config) -> None:
    """Raise UsageError for an option of the verb's own that makes no sense."""
    check_seed(options["seed"])
    _check_published(options.get("published"))
    if not isinstance(options["output"], str):
        raise UsageError(f"output: is {options['output']!r}, expected a folder.")
    check_filled(output=options["output"])
    check_device(options["trainer"])


def _check_published(published: Any) -> None:
    """Raise UsageError unless this is a published score: source, metric and value."""
    if published is None:
        return
    keys = ("source", "metric", "value")
    if not isinstance(published, dict) or any(published.get(key) is None for key in keys):
        raise UsageError(
            f"published: is {published!r}, expected a mapping of {', '.join(keys)}.\n"
            "  It stands beside the figures of the test part; published=null leaves it out."
        )
    if not is_number(published["value"]):
        raise UsageError(f"published.value: is {published['value']!r}, expected a number.")


def _follows_validation(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written after a validation; of earlier versions it is assumed."""
    ours, step = checkpoint["callbacks"].get(Checkpoints.__name__, {}), checkpoint["global_step"]
    return bool(ours.get("validated_at", step) == step)


@contextmanager
def _without_loggers(trainer: Trainer) -> Iterator[None]:
    """Log nothing meanwhile, since it has been logged already."""
    loggers, trainer.loggers = trainer.loggers, []
    try:
        yield
    finally:
        trainer.loggers = loggers


class _Training:
    """A run, from reading its data to reporting what the model reached.

    Args:
        options: The resolved configuration.
        running: The run's folder; it is given the trainer.
        also: Arguments that later commands on this run need too.

    Attributes:
        result: What marks the run as finished; None while it is not.
    """

    def __init__(self, options: Config, running: Running, also: Sequence[str]) -> None:
        allow = options["allow"]
        self.options, self.folder, self.also = options, running.folder, also
        seed_everything(options["seed"], verbose=False)
        self.data = make_data(options, allow)
        known = self.data.describe()
        check_sizes(options, known["sizes"])
        self.module = make_module(options, known, allow)
        self.module.card["config"] = {**options, "resume": None}
        self.callbacks: dict[str, Callback] = {
            name: make_one(callback, allow, f"callbacks.{name}", Callback)
            for name, callback in (options["callbacks"] or {}).items()
            if callback is not None
        }
        check_searches(self.callbacks)
        self._compare_what_is_swept()
        self.trainer = running.trainer = self._make_trainer()
        self.console = terminal()
        self.console.quiet = not self.trainer.is_global_zero
        self.result: dict[str, Any] | None = None
        self._before: Config = {}
        self._tested = False
        self.parameters = sum(parameter.numel() for parameter in self.module.model.parameters())

    def _compare_what_is_swept(self) -> None:
        """Have the table of hyperparameters begin with the keys that a sweep varies, if any."""
        shown = self._callback(Hyperparameters)
        if shown is not None and (keys := os.environ.get(SWEPT_VARIABLE)):
            shown.compared = (*keys.split(","), *shown.compared)

    def _make_trainer(self) -> Trainer:
        options = self.options
        padding = LambdaCallback(on_train_start=self._report_padding)
        start = LambdaCallback(on_train_start=self._mark_started)
        return make_trainer(
            options,
            options["allow"],
            [padding, *self.callbacks.values(), start],
            trains=True,
            logger=make_loggers(options["logger"], options["allow"], self.folder),
            default_root_dir=str(self.folder),
        )

    def run(self, checkpoint: Path | None) -> Trained:
        """Train, from a checkpoint if one is given; test and report unless training is stopped."""
        if checkpoint is not None:
            saved = load_checkpoint(checkpoint)
            check_same_seed(self.options["seed"], saved)
            check_same_start(self.options, self.module.card["data"]["sizes"], saved)
            check_epochs(self.trainer, saved)
            self._tested = runs.is_tested(self.folder)
            scored = self._tested or _follows_validation(saved)
            purge_after(self.trainer, saved["global_step"], scored)
            self._before = saved["seqnets"]["config"]["trainer"]
        if self.trainer.is_global_zero:
            open_log(self.folder)
            sweep_rows.write_folder(report.shown(self.folder))
        if checkpoint is None:
            self._mark_started()
        self.console.print(f"Run folder: {report.shown(self.folder)}", soft_wrap=True)
        self.console.print(f"The model has {counted(self.parameters, 'parameter')}.")
        self._report_lack_of_checkpoints()

        path: Any = checkpoint
        with trainer_errors():
            self.trainer.fit(self.module, self.data, ckpt_path=path, weights_only=True)
        trained = self._validated()
        stop = self._callback(StopOnSignal)
        if stop is not None and stop.received is not None:
            name, step = signal.Signals(stop.received).name, self.trainer.global_step
            self._report_stop(f"Stopped by {name} at step {step}", "to continue:")
            return self._stopped(trained, 128 + stop.received)

        if self.module.last_loss is None and checkpoint is None:
            raise ConfigError(
                "trainer: its limits leave a new run no step to take, expected at least one.\n"
                "  They are max_epochs, max_steps, max_time and limit_train_batches."
            )
        pruning = self._callback(Pruning)
        if pruning is not None and pruning.reason is not None:
            self.result = {"pruned": pruning.reason}
            self._report_stop(f"Pruned: {pruning.reason}", "to continue all the same:")
            return trained._replace(pruned=True)
        try:
            self._conclude(trained)
        except Stopped as stopped:
            self._report_stop(f"{stopped} after training", "to score what was trained:")
            return self._stopped(trained, stopped.code)
        return trained._replace(test=report.figures(self.trainer, "test").get(trained.metric))

    def _stopped(self, trained: Trained, code: int) -> Trained:
        """End with a signal's code in the first process of each machine.

        Lightning, which started the machine's others, kills it if they end with one meanwhile.
        """
        return trained._replace(code=0 if self.trainer.local_rank else code)

    def _mark_started(self, *_: Any) -> None:
        mark_started(self.options, self.folder, self.trainer)

    def _report_lack_of_checkpoints(self) -> None:
        """Say before a run, and not after days, that it will leave no weights."""
        there = any(isinstance(callback, Checkpoint) for callback in self.callbacks.values())
        if there or not self.trainer.is_global_zero:
            return
        message = "None of the callbacks writes checkpoints: the weights will be lost at the end."
        self.console.print(
            f"{message}\nTo add seqnets' own, begin your file in callbacks/ with the lines\n"
            "defaults:\n  - default",
            soft_wrap=True,
        )
        logger.info(message)

    def _report_padding(self, *_: Any) -> None:
        """Report the fraction of padding in the training batches, if any.

        Call once all processes have started, because it covers the batches of all of them.
        """
        if not self.trainer.is_global_zero or not (share := self.data.loader("train").padding):
            return
        message = f"Padding is {share:.1%} of the training steps."
        dataset = self.options["dataset"]
        if share > 0.5 and "window" in dataset and dataset["window"] is None:
            message += " dataset.window=STEPS would cut long sequences."
        self.console.print(message)
        logger.info(message)
        writer = writer_of(self.trainer)
        if writer is not None:
            writer.add_text("padding", message, self.trainer.global_step)

    def _report_stop(self, stopped: str, purpose: str) -> None:
        logger.info(stopped)
        report.show(self.console, f"{stopped}; {purpose}", resuming(self.folder, self.also))

    def _validated(self) -> Trained:
        """What training reached on the validation part: the best score, or else the last."""
        objective, kept = self.module.objective, self._callback(Checkpoints)
        score = report.figures(self.trainer, "val").get(objective.metric)
        if kept is not None and kept.best_score is not None:
            score = kept.best_score
        folder = report.shown(self.folder)
        return Trained(0, folder, self.parameters, objective.metric, objective.mode, score)

    def _conclude(self, trained: Trained) -> None:
        """Test the model; print how training ended, a sample, and commands for what to do next."""
        trainer, module, console = self.trainer, self.module, self.console
        early, idle = early_stopping(self.callbacks), module.last_loss is None
        if early is not None:
            console.print(f"Stopped early: {early[1].reason}.")
        elif idle:
            console.print(f"Nothing is left to train: {limit_reached(trainer)}.")
        kept, result = self._test(trained)
        vocabulary: Any = self.data.vocabulary
        if isinstance(module.objective, LanguageModelling) and vocabulary is not None:
            samples = self._callback(TextSamples) or TextSamples()
            passage = samples.passage(module.model, vocabulary)
            report.show(console, "A sampled passage:", passage.strip())
        if kept is None:
            console.print("\nThere is no checkpoint: no callback has written one.")
        else:
            report.show(console, "Checkpoint:", report.shown(kept))
        limits = self._before if idle else self.options["trainer"]
        longer = extended_limits(self.options, trainer, early, limits)
        commands = follow_ups(self.folder, kept, trainer, module.objective, longer, self.also)
        if commands and sweep_rows.FOLDER_VARIABLE not in os.environ:  # a sweep's table follows
            lines = (f"# {purpose}\n{command}" for purpose, command in commands.items())
            report.show(console, "What to do next:", "\n".join(lines))
        self.result = result

    def _test(self, trained: Trained) -> tuple[Path | None, dict[str, Any]]:
        """Test the best weights, unless disabled.

        Returns:
            The checkpoint that holds them, if any, and the scores to keep.
        """
        trainer, objective = self.trainer, self.module.objective
        best, step = Checkpoints.folder(trainer) / "best.ckpt", trainer.global_step
        if best.exists():
            checkpoint = load_checkpoint(best)
            load_weights(self.module, checkpoint, best)
            step = checkpoint["global_step"]
        written = (path for path in (best, best.with_name("last.ckpt")) if path.exists())
        kept = next(written, None)
        if not trainer.limit_test_batches:
            self.console.print("\nThe test part is not scored: trainer.limit_test_batches=0.")
            return kept, {}
        logged = self._tested and self.module.last_loss is None
        with _without_loggers(trainer) if logged else nullcontext():
            trainer.test(self.module, self.data, verbose=False)
        if not trainer.is_global_zero:
            return kept, {}
        figures = report.figures(trainer, "test")
        baselines = objective.in_metric(self.data.baselines(), self.module.card["data"])
        published = self.options.get("published")
        self.console.print()
        self.console.print(
            report.figures_table("the test part", figures, objective, baselines, published)
        )
        logger.info("test: %s", figures)
        return kept, {
            "metric": trained.metric,
            "mode": trained.mode,
            "validation": trained.score,
            "test": figures,
            "baselines": baselines,
            "step": step,
            "parameters": trained.parameters,
        }

    def _callback(self, kind: type[_C]) -> _C | None:
        """The first callback of a type, or None."""
        return next((c for c in self.callbacks.values() if isinstance(c, kind)), None)
