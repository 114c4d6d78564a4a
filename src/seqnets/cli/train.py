"""``seqnets train``: from a composed configuration to a trained, tested, resumable model."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, LambdaCallback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import seqnets
from seqnets.cli import report, runs
from seqnets.cli.assemble import (
    Config,
    check_device,
    check_filled,
    check_seed,
    make_data,
    make_module,
    make_one,
    make_trainer,
    plain,
    trainer_errors,
)
from seqnets.cli.console import quiet, terminal
from seqnets.cli.main import FULL
from seqnets.cli.names import UsageError, shell
from seqnets.cli.stopping import Stopped
from seqnets.cli.sweep import Trained
from seqnets.datasets import DataModule
from seqnets.errors import ConfigError, SeqnetsError, counted
from seqnets.training import (
    LanguageModelling,
    Objective,
    SequenceModule,
    load_checkpoint,
    load_weights,
)
from seqnets.training.callbacks import Checkpoints, EarlyStopping, StopOnSignal, TextSamples
from seqnets.training.callbacks.tensorboard import purge_after, writer_of

logger = logging.getLogger(__name__)

_C = TypeVar("_C", bound=Callback)

_FOLDER_VARIABLE = "SEQNETS_RUN_FOLDER"
"""Environment variable that passes the run folder to the processes Lightning starts."""

_PEER_LOST = ("closed by peer", "reset by peer", "remote process exited")
"""Fragments of the Gloo and NCCL errors raised when a peer process has exited."""

_MIN_PATIENCE = 5
"""Minimum patience, in validations, suggested for resuming a run that stopped early."""


def from_checkpoint(given: Mapping[str, Any], own: Config) -> tuple[Config, Config] | None:
    """Return the configuration of the run to resume, and replacements for the overrides given.

    Args:
        given: The overrides from the command line.
        own: The verb's configuration file.
    """
    resume = given.get("resume")
    started = _FOLDER_VARIABLE in os.environ  # by a process that has settled which run "last" is
    if "output" in given and resume not in (None, "last", "auto") and not started:
        raise UsageError(
            "output: came with a run to resume, expected one of the two.\n"
            "  A run goes on in its own folder; resume=last and resume=auto look for it in output."
        )
    path = runs.find_resume(resume, given.get("output") or own["output"])
    if path is None:
        return None
    ours = {key: own[key] for key in ("allow", "output", "resume")}
    return {**runs.saved_config(path), **ours}, {"resume": str(path)}


def run(config: DictConfig, choices: Mapping[str, Any], command: str) -> Trained:
    """Train, test and report.

    Args:
        config: The configuration composed by Hydra.
        choices: The chosen option of each config group.
        command: Shell-quoted options that follow-up commands on this run need as well.

    Raises:
        SeqnetsError: The configuration, data or checkpoint is faulty, or training diverged.
    """
    options = plain(config)
    check_seed(options["seed"])
    _check_published(options.get("published"))
    if not isinstance(options["output"], str):
        raise UsageError(f"output: is {options['output']!r}, expected a folder.")
    check_filled(output=options["output"])
    check_device(options["trainer"])
    # an "auto" that found a run has been replaced by its checkpoint's path
    fresh = options["resume"] in (None, "auto")
    checkpoint = None if fresh else runs.checkpoint_at(options["resume"])
    existing = None if checkpoint is None else runs.folder_of(checkpoint)
    if existing is not None:
        options["output"] = report.shown(existing.parent.parent)  # a resumed run stays where it is
    console = terminal()
    if options["resume"] == "auto":
        console.print("resume=auto: there is no unfinished run, a new one starts.")
    dataset = choices.get("dataset") or "resumed"
    with _full_disk(), _running(existing, options, dataset) as running, quiet(), _peer_errors():
        return _train(options, running, checkpoint, console, command)


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


@dataclass
class _Running:
    """A run's folder, and its trainer once created."""

    folder: Path
    trainer: Trainer | None = None


def _train(
    options: Config, running: _Running, checkpoint: Path | None, console: Console, command: str
) -> Trained:
    allow, folder = options["allow"], running.folder
    seed_everything(options["seed"], verbose=False)
    data = make_data(options, allow)
    module = make_module(options, data.describe(), allow)
    module.card["config"] = {**options, "resume": None}
    named = {
        name: make_one(callback, allow, f"callbacks.{name}")
        for name, callback in (options["callbacks"] or {}).items()
        if callback is not None
    }
    callbacks = list(named.values())
    padding = LambdaCallback(on_train_start=partial(_report_padding, data, console))
    start = LambdaCallback(on_train_start=partial(_mark_started, options, folder))
    trainer = _make_trainer(options, folder, [padding, *callbacks, start])
    running.trainer = trainer
    if checkpoint is not None:
        purge_after(trainer, load_checkpoint(checkpoint)["global_step"])
    console.quiet = not trainer.is_global_zero
    if trainer.is_global_zero:
        _open_log(folder)
    if checkpoint is None:
        _mark_started(options, folder, trainer)
    size = sum(parameter.numel() for parameter in module.model.parameters())
    console.print(f"Run folder: {report.shown(folder)}", soft_wrap=True)
    console.print(f"The model has {counted(size, 'parameter')}.")

    path: Any = checkpoint
    with trainer_errors():
        trainer.fit(module, data, ckpt_path=path, weights_only=True)
    validated = _validated(trainer, module.objective, callbacks)
    trained = Trained(0, report.shown(folder), size, *validated)
    stop = _first(callbacks, StopOnSignal)
    if stop is not None and stop.received is not None:
        stopped = f"Stopped by {signal.Signals(stop.received).name} at step {trainer.global_step}"
        logger.info(stopped)
        report.show(console, f"{stopped}; to go on:", f"{_again(folder)}{command}")
        return trained._replace(code=128 + stop.received)

    if module.last_loss is None and checkpoint is None:
        raise ConfigError(
            "trainer: its limits let a new run make no step, expected at least one.\n"
            "  They are max_epochs, max_steps, max_time and limit_train_batches."
        )
    try:
        _conclude(options, folder, trained, trainer, named, console, command)
    except Stopped as stop:
        logger.info("%s after training", stop)
        again = f"{_again(folder)}{command}"
        report.show(console, f"{stop} after training; to score what was trained:", again)
        return trained._replace(code=stop.code)
    return trained._replace(test=report.figures(trainer, "test").get(trained.metric))


def _conclude(
    options: Config,
    folder: Path,
    trained: Trained,
    trainer: Trainer,
    callbacks: Mapping[str, Callback],
    console: Console,
    command: str,
) -> None:
    """Test the model; print how training ended, a sample, and commands for what to do next."""
    module: Any = trainer.lightning_module
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    early = _early(callbacks)
    if early is not None:
        console.print(f"Stopped early: {early[1].reason}.")
    elif module.last_loss is None:
        console.print(f"Nothing is left to train: {_limit_reached(trainer)}.")
    kept = _test(trainer, module, data, folder, trained, console, options.get("published"))
    if isinstance(module.objective, LanguageModelling) and data.vocabulary is not None:
        samples = _first(callbacks.values(), TextSamples) or TextSamples()
        passage = samples.passage(module.model, data.vocabulary)
        report.show(console, "A sampled passage:", passage.strip())
    report.show(console, "Checkpoint:", report.shown(kept))
    longer = _extended_limits(options, trainer, early, idle=module.last_loss is None)
    commands = _what_next(folder, kept, trainer, module.objective, longer, command)
    report.show(console, f"{', '.join(commands).capitalize()}:", "\n".join(commands.values()))


def _first(callbacks: Iterable[Callback], kind: type[_C]) -> _C | None:
    """Return the first callback of a type, or None."""
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def _validated(
    trainer: Trainer, objective: Objective, callbacks: Sequence[Callback]
) -> tuple[str, str, float | None]:
    """Return the main metric, its mode, and its best validation score."""
    kept = _first(callbacks, Checkpoints)
    last = report.figures(trainer, "val").get(objective.metric)
    best = last if kept is None or kept.best_score is None else kept.best_score
    return objective.metric, objective.mode, best


def _report_padding(data: DataModule, console: Console, trainer: Trainer, *_: Any) -> None:
    """Report the fraction of padding in the training batches, if any.

    Call once all processes have started, because it covers the batches of all of them.
    """
    if not trainer.is_global_zero or not (share := data.loader("train").padding):
        return
    message = f"Padding is {share:.1%} of the training steps."
    console.print(message)
    logger.info(message)
    writer = writer_of(trainer)
    if writer is not None:
        writer.add_text("padding", message, trainer.global_step)


def _test(
    trainer: Trainer,
    module: SequenceModule,
    data: DataModule,
    folder: Path,
    trained: Trained,
    console: Console,
    published: Config | None,
) -> Path:
    """Test the best weights, unless disabled; return the checkpoint that holds them."""
    best, step = Checkpoints.folder(trainer) / "best.ckpt", trainer.global_step
    if best.exists():
        checkpoint = load_checkpoint(best)
        load_weights(module, checkpoint, best)
        step = checkpoint["global_step"]
    kept = best if best.exists() else best.with_name("last.ckpt")
    if not trainer.limit_test_batches:
        if trainer.is_global_zero:
            console.print("\nThe test part is not scored: trainer.limit_test_batches=0.")
            runs.write_result(folder, {})
        return kept
    trainer.test(module, data, verbose=False)
    if trainer.is_global_zero:
        figures = report.figures(trainer, "test")
        baselines = data.baselines()
        console.print()
        table = report.figures_table(
            "the test part", figures, module.objective, baselines, published
        )
        console.print(table)
        result = {
            "metric": trained.metric,
            "mode": trained.mode,
            "validation": trained.score,
            "test": figures,
            "rivals": report.in_metric(module.objective, baselines),
            "step": step,
            "parameters": trained.parameters,
        }
        runs.write_result(folder, result)
        logger.info("test: %s", figures)
    return kept


def _again(folder: Path) -> str:
    return f"{report.called('seqnets')} train {report.typed('resume', folder)}"


def _what_next(
    folder: Path,
    kept: Path,
    trainer: Trainer,
    objective: Objective,
    longer: Sequence[str],
    command: str,
) -> dict[str, str]:
    """Return the follow-up commands for a finished run, by purpose."""
    program, checkpoint = report.called("seqnets"), report.typed("checkpoint", kept)
    commands = {}
    if writer_of(trainer) is not None:
        all_runs = shell(report.shown(folder.parent.parent))
        commands["to look"] = f"{report.called('tensorboard')} --logdir {all_runs}"
    if isinstance(objective, LanguageModelling):
        commands["to sample"] = f"{program} generate {checkpoint} temperature=0.8{command}"
    elif type(objective).rows is not Objective.rows:
        commands["to predict"] = f"{program} predict {checkpoint}{command}"
    commands["to score"] = f"{program} evaluate {checkpoint}{command}"
    commands["to go on"] = " ".join([_again(folder), *longer]) + command
    return commands


def _early(callbacks: Mapping[str, Callback]) -> tuple[str, EarlyStopping] | None:
    """Return the config name and callback of early stopping, if it ended the run."""
    stopping = ((name, c) for name, c in callbacks.items() if isinstance(c, EarlyStopping))
    return next(((name, c) for name, c in stopping if c.reason is not None), None)


def _limits(trainer: Trainer) -> Iterator[tuple[str, int, int]]:
    """Yield each limit of a run: unit, progress and maximum, -1 for no limit."""
    for unit, done in (("epoch", trainer.current_epoch), ("step", trainer.global_step)):
        limit = getattr(trainer, f"max_{unit}s")
        yield unit, done, -1 if limit is None else limit


def _limit_reached(trainer: Trainer) -> str:
    """Describe the limit that ended a run: "step 604 of trainer.max_steps=100"."""
    found = (
        f"{unit} {done} of trainer.max_{unit}s={limit}"
        for unit, done, limit in _limits(trainer)
        if done >= limit >= 0
    )
    return next(found, "trainer.max_time is over")


def _extended_limits(
    options: Config, trainer: Trainer, early: tuple[str, EarlyStopping] | None, idle: bool
) -> list[str]:
    """Return overrides that extend a finished run by its original length.

    The checkpoint stores the run's limits; an idle run wrote no checkpoint and needs all of them.
    """
    longer = [
        f"trainer.max_{unit}s={-1 if limit < 0 else max(done, limit) + max(1, limit)}"
        for unit, done, limit in _limits(trainer)
        if limit >= 0 or idle
    ]
    if options["trainer"].get("max_time"):
        longer.append("trainer.max_time=null")
    if early is not None:
        name, callback = early
        patience = callback.wait_count + max(_MIN_PATIENCE, callback.patience)
        longer.append(f"callbacks.{name}.patience={patience}")
    return longer


def _make_trainer(options: Config, folder: Path, callbacks: list[Callback]) -> Trainer:
    allow = options["allow"]
    logger_of = make_one(options["logger"], allow, "logger") if options["logger"] else None
    return make_trainer(
        options,
        allow,
        callbacks,
        logger=logger_of(save_dir=str(folder)) if logger_of else False,
        default_root_dir=str(folder),
    )


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    """Turn a full disk into a ConfigError, whichever file of the run could not be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise ConfigError(
            f"output: the run's files cannot be written: {error.strerror}.\n"
            "  Free some space or choose another folder (output=FOLDER). A run with a checkpoint "
            "can be resumed."
        ) from error


@contextlib.contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn the loss of a peer process into a SeqnetsError; the peer reports the cause itself."""
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in _PEER_LOST):
            raise
        raise SeqnetsError(
            "Training: another of its processes has ended, expected all to go on.\n"
            "  It says why, unless the system ended it, perhaps for want of memory. A run with a "
            "checkpoint can be resumed."
        ) from error


@contextlib.contextmanager
def _running(existing: Path | None, options: Config, dataset: str) -> Iterator[_Running]:
    """Yield the run with its existing or new folder, locked while training."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        if _FOLDER_VARIABLE not in os.environ:
            raise ConfigError(
                "trainer: another program started the processes, expected seqnets to.\n"
                "  Call `seqnets train` once; trainer.devices says how many there are."
            )
        yield _Running(Path(os.environ[_FOLDER_VARIABLE]))
        return
    running = _Running(existing or runs.new_folder(options["output"], dataset))
    with _logged(running, new=existing is None), runs.locked(running.folder):
        yield running


@contextlib.contextmanager
def _logged(running: _Running, new: bool) -> Iterator[None]:
    """Log how the run ends; remove the folder of a new run that fails before its first step."""
    os.environ[_FOLDER_VARIABLE] = str(running.folder)
    try:
        yield
    except BaseException as error:
        trace = None if isinstance(error, SeqnetsError | Stopped) else error
        logger.info("ended by %s: %s", type(error).__name__, error, exc_info=trace)
        if new and (running.trainer is None or running.trainer.global_step == 0):
            _close_log()
            shutil.rmtree(running.folder)
        raise
    finally:
        del os.environ[_FOLDER_VARIABLE]
        _close_log()


class _Log(logging.FileHandler):
    """A log file that drops lines a full disk cannot take; the terminal reports the error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in logging)
        """Ignore the error."""

    def close(self) -> None:
        """Close the file even if its buffer cannot be flushed."""
        with contextlib.suppress(OSError):
            super().close()


def _mark_started(options: Config, folder: Path, trainer: Trainer, *_: Any) -> None:
    """Save the resolved configuration and clear the mark of a finished run."""
    if trainer.is_global_zero:
        runs.mark_unfinished(folder)
        OmegaConf.save(OmegaConf.create(options), folder / "config.yaml")


def _open_log(folder: Path) -> None:
    """Open the log, appending to an existing one."""
    handler = _Log(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.name = _FOLDER_VARIABLE
    logging.getLogger().addHandler(handler)
    logging.getLogger("seqnets").setLevel(logging.INFO)
    logger.info("seqnets %s: %s", seqnets.__version__, shlex.join(sys.argv[1:]))


def _close_log() -> None:
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h.name == _FOLDER_VARIABLE]:
        root.removeHandler(handler)
        handler.close()
