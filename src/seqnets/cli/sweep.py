"""Sweeps: what their jobs end with, and in which direction a sweeper optimises."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from seqnets.cli.arguments import key_of
from seqnets.cli.names import UsageError
from seqnets.cli.stopping import Stopped
from seqnets.errors import ConfigError, SeqnetsError, cut_short
from seqnets.insight.visible import visible

SWEPT_VARIABLE = "SEQNETS_SWEPT"
"""Environment variable that tells a job in which keys it may differ from others."""

_DIRECTIONS = {
    "direction": {"min": "minimize", "max": "maximize"},  # Optuna's
    "optim.maximize": {"min": "false", "max": "true"},  # Nevergrad's
    "ax_config.experiment.minimize": {"min": "true", "max": "false"},
    "ax_config.early_stop.minimize": {"min": "true", "max": "false"},
}
"""Options of sweepers that are the direction in which they optimise, by an objective's mode."""

_FOLDER = "run_folder"
"""The attribute of an error that names the folder of the run that it ended."""

_LONGEST = 200
"""The most characters of a reason."""


class Trained(NamedTuple):
    """The result of a training.

    Attributes:
        code: 0, or 128 + the number of the signal that stopped it.
        folder: The run's folder, as printed.
        parameters: Number of the model's parameters.
        metric: The objective's metric.
        mode: "min" or "max": the direction in which it improves.
        score: Its best value on the validation part; None without validation.
        test: Its value on the test part; None if the run was stopped before.
        pruned: Whether the run was ended early because the sweep's others were better.
    """

    code: int
    folder: str
    parameters: int
    metric: str
    mode: str
    score: float | None
    test: float | None = None
    pruned: bool = False


class Failed(NamedTuple):
    """How a job ended that has no result.

    Attributes:
        reason: Why, in a line.
        folder: The folder that its run left, as printed; None if it left none.
        stopped: Whether a signal ended it, and not a mistake.
    """

    reason: str
    folder: str | None = None
    stopped: bool = False


class Job(NamedTuple):
    """A job of a sweep.

    Attributes:
        swept: The values in which it may differ from other jobs, by key.
        trained: Its result; None if it failed.
        failed: How it failed; None if it did not.
    """

    swept: dict[str, str]
    trained: Trained | None
    failed: Failed | None = None

    @property
    def folder(self) -> str | None:
        """The run's folder; None if there is none."""
        ended = self.trained or self.failed
        return None if ended is None else ended.folder


UNFINISHED = Failed("It had not ended when the sweep did.", stopped=True)
"""What is known of a job until it ends; later too, if it is killed."""


def note_folder(error: BaseException, folder: str) -> None:
    """Note on an error the folder of the run that it ended, as printed."""
    setattr(error, _FOLDER, folder)


def failure(error: BaseException) -> Failed:
    """How a job failed, according to the error that ended it."""
    said = visible(str(error).partition("\n")[0])
    if not isinstance(error, SeqnetsError | Stopped):
        name = type(error).__name__
        said = f"{name}: {said}" if said else name
    is_stop = isinstance(error, Stopped | KeyboardInterrupt)
    return Failed(cut_short(said, _LONGEST), getattr(error, _FOLDER, None), is_stop)


class Direction(Callback):
    """Take an optimising sweeper's direction from the objective, unless the user named one."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Set the sweeper's direction, if it has one."""
        given = config.hydra.overrides.hydra
        for option in _options_of(config.hydra.sweeper):
            key = f"hydra.sweeper.{option}"
            named = any(key_of(each) == key for each in given)
            mode = None if named else _mode(config)
            if mode is not None:
                chosen = f"{key}={_DIRECTIONS[option][mode]}"
                with read_write(config):
                    config.merge_with_dotlist([chosen])
                    given.append(chosen)  # each job composes it anew


def optimises(sweeper: DictConfig) -> bool:
    """Whether a sweeper uses the scores of jobs to choose the next ones."""
    return bool(_options_of(sweeper))


def worst(sweeper: DictConfig) -> float:
    """The score of a job that diverged."""
    option, came = next(iter(_options_of(sweeper).items()))
    return math.inf if came == _DIRECTIONS[option]["min"] else -math.inf


def check_direction(verb: str, config: DictConfig, sweeper: DictConfig) -> None:
    """Raise UsageError if a sweeper optimises a verb without scores, or in the wrong direction."""
    options = _options_of(sweeper)
    if not options:
        return
    if verb != "train":
        raise UsageError(
            f"hydra/sweeper: optimises `seqnets {verb}`, expected `seqnets train`.\n"
            "  Only training has a score to optimise, that of the validation part."
        )
    mode = _mode(config)
    for option, came in options.items():
        expected = came if mode is None else _DIRECTIONS[option][mode]
        if came != expected:
            key, name = f"hydra.sweeper.{option}", config.objective._target_.rpartition(".")[2]
            raise UsageError(
                f"{key}: is {came}, expected {expected}.\n"
                f"  This is the direction in which the metric of the objective, {name}, improves.\n"
                f"  Leave it out, or give it as {key}={expected}."
            )


def _options_of(sweeper: DictConfig) -> dict[str, str]:
    """The options of a sweeper that are its direction, with their values; none of most sweepers."""
    there = {}
    for option in _DIRECTIONS:
        outer, _, last = option.rpartition(".")
        group = OmegaConf.select(sweeper, outer) if outer else sweeper
        if OmegaConf.is_dict(group) and last in group:
            value = getattr(group[last], "name", group[last])
            there[option] = str(value).lower() if isinstance(value, bool) else str(value)
    return there


def check_score(trained: Trained | None, sweeper: DictConfig) -> None:
    """Raise ConfigError if an optimising sweeper gets no score."""
    if optimises(sweeper) and trained is not None and trained.score is None:
        raise ConfigError(
            f"hydra/sweeper: the run {trained.folder} has no validation score, expected one to "
            "optimise.\n"
            "  Let it validate: trainer.limit_val_batches and trainer.check_val_every_n_epoch."
        )


def _mode(config: DictConfig) -> str | None:
    """The mode of an objective; None if it cannot be made, which its job reports."""
    from seqnets.cli.build import build  # late: it brings torch

    with contextlib.suppress(SeqnetsError, OmegaConfBaseException):
        mode: str = build(config.objective, config.allow, "objective").mode
        return mode
    return None
