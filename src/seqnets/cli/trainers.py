"""The trainer of a configuration, and the loggers of a run."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    LearningRateFinder,
    ProgressBar,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from seqnets.checks import check_count, is_number
from seqnets.cli.assemble import make_one
from seqnets.cli.build import build, option_errors
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config
from seqnets.errors import ConfigError, DeviceError, SeqnetsError, counted
from seqnets.signatures import signature_of
from seqnets.training import AtomicCheckpointIO

RESERVED = {
    "callbacks": "+callbacks.NAME._target_=CLASS adds one.",
    "default_root_dir": "output=FOLDER says where runs are kept.",
    "enable_checkpointing": "callbacks.checkpoints=null leaves checkpoints out.",
    "enable_model_summary": "TensorBoard shows the model under TEXT.",
    "enable_progress_bar": "callbacks.progress=null leaves it out.",
    "logger": "logger=NAME chooses one, logger=none leaves it out.",
    "use_distributed_sampler": "Each process gets its share of the data.",
}
"""Options of Lightning's Trainer that are not the user's to give, and what to do to train."""

_LATE = r"`val_check_interval` \((\d+)\) must be .* training batches \((\d+)\)"
"""How Lightning says that an epoch ends before its first validation."""

_LOGGER_EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
"""The extras of seqnets that bring what loggers need."""


def make_trainer(
    config: Config,
    allow: Sequence[str],
    callbacks: list[Callback],
    trains: bool = False,
    **options: Any,
) -> Trainer:
    """Make the trainer of a configuration, which writes seqnets' checkpoints.

    Args:
        config: The whole configuration; the trainer's options are under "trainer".
        allow: Modules of the user's own that the configuration may name.
        callbacks: The trainer's callbacks.
        trains: Whether for `seqnets train`, whose other options do what some refused ones would.
        options: Further options of Lightning's Trainer.

    Raises:
        DeviceError: The machine lacks a requested device.
        UsageError: An option is not the user's to give.
        ConfigError: Lightning refuses the options, or their processes could not finish a run.
    """
    for name in (name for name in RESERVED if name in config["trainer"]):
        raise UsageError(
            f"trainer.{name}: is set by the command itself, expected it to be left out."
            + (f"\n  {RESERVED[name]}" if trains else "")
        )
    check_device(config["trainer"])
    factory = build({**config["trainer"], "_partial_": True}, allow, "trainer")
    _check_limits(config["trainer"])
    plugins = factory.keywords.get("plugins") or []
    ours: dict[str, Any] = {
        "callbacks": callbacks,
        "plugins": [AtomicCheckpointIO(), *(plugins if isinstance(plugins, list) else [plugins])],
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # the loaders give each process its share
    }
    if not config["trainer"].get("profiler"):
        ours["profiler"] = _NoProfiler()
    if config["trainer"].get("accelerator", "auto") == "auto":
        # Lightning would choose Apple's GPU, for which the engine has no loops.
        ours["accelerator"] = "cuda" if torch.cuda.is_available() else "cpu"
    with trainer_errors():
        trainer: Trainer = factory(**ours, **options)
    if trains and isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigError(
            "trainer.strategy: has this process start others that train in its place, expected one "
            "with which every process runs the whole command.\n"
            "  Those are ddp (trainer=ddp) and fsdp. From Python, any strategy will do."
        )
    return trainer


_SEARCHED = {
    BatchSizeFinder: "dataset.batch_size=16,32,64",
    LearningRateFinder: "optimizer.lr=1e-4,1e-3,1e-2",
}
"""Lightning's callbacks that search for a value, and how a sweep tries some."""


def check_searches(callbacks: Mapping[str, Callback]) -> None:
    """Raise ConfigError for a callback that replaces what the configuration says by what it finds.

    A run's files would tell another value than it had, and it would be resumed with that.
    """
    for name, callback in callbacks.items():
        for kind, tried in _SEARCHED.items():
            if isinstance(callback, kind):
                raise ConfigError(
                    f"callbacks.{name}: {type(callback).__name__} replaces what the configuration "
                    "says, expected a run that has what its config.yaml tells.\n"
                    f"  A sweep tries values: -m {tried}"
                )


class _NoProfiler(PassThroughProfiler):
    """A profiler that costs nothing: Lightning's makes some seventy context managers a step."""

    _nothing: AbstractContextManager[Any] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nothing


@contextlib.contextmanager
def trainer_errors() -> Iterator[None]:
    """Turn Lightning's errors about its options into a ConfigError; pass on all others."""
    try:
        yield
    except (MisconfigurationException, TypeError, ValueError, RuntimeError, ImportError) as error:
        raised = [
            frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)
        ]
        if isinstance(error.__cause__, OSError):  # for example, a logger found no room to write
            raise error.__cause__ from None
        if isinstance(error, SeqnetsError) or not raised[-1].startswith("lightning."):
            raise
        if late := re.search(_LATE, str(error)):
            raise ConfigError(
                f"trainer.val_check_interval: is {late[1]} batches, expected at most the {late[2]} "
                "of an epoch.\n  trainer.check_val_every_n_epoch=null counts over epochs."
            ) from error
        if isinstance(error, ImportError):  # a callback's, for example
            raise ConfigError(f"trainer: Lightning lacks a package: {error}") from error
        raise ConfigError(f"trainer: Lightning does not take these options: {error}") from error


def _check_limits(options: Config) -> None:
    """Raise ConfigError for values that Lightning accepts but fails on later, or misunderstands."""
    counts = ("accumulate_grad_batches", "check_val_every_n_epoch")
    given = {name: value for name, value in options.items() if value is not None}
    check_count("trainer", **{name: given[name] for name in counts if name in given})
    check_count("trainer", 0, log_every_n_steps=given.get("log_every_n_steps", 0))
    clip, often = given.get("gradient_clip_val", 0), given.get("val_check_interval", 1)
    if not clip >= 0:
        raise ConfigError(
            f"trainer: gradient_clip_val is {clip!r}, expected a number of at least 0.\n"
            "  0 or null clips nothing."
        )
    if not {"max_epochs", "max_time"} & given.keys() and given.get("max_steps", -1) == -1:
        raise ConfigError(
            "trainer: max_epochs is null and there is no other limit, expected one: Lightning "
            "would train for 1000 epochs.\n  -1 means no limit."
        )
    longest = given.get("max_time")
    if isinstance(longest, (int, float)):
        raise ConfigError(
            f"trainer: max_time is {longest!r}, expected days, hours, minutes and seconds.\n"
            "  Two hours are trainer.max_time=00:02:00:00."
        )
    if isinstance(often, (int, float)) and not (is_number(often) and often > 0):
        raise ConfigError(
            f"trainer: val_check_interval is {often!r}, expected a share of an epoch up to 1.0, or "
            "batches.\n  Without validations: +trainer.limit_val_batches=0."
        )


def check_device(options: Config) -> None:
    """Raise DeviceError if more GPUs are requested than the machine has."""
    accelerator, devices = options.get("accelerator"), options.get("devices", 1)
    if accelerator not in ("gpu", "cuda", "mps"):
        return
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator != "cuda" and torch.backends.mps.is_available():
        there = max(there, 1)
    asked = devices if isinstance(devices, int) and devices > 0 else 1
    if asked > there:
        raise DeviceError(
            f"trainer.accelerator: is {accelerator!r} with {counted(asked, 'device')}, expected at "
            f"most the {there} that this machine has.\n"
            f"  Use trainer=cpu, or trainer=auto, which takes CUDA if it is there."
        )


def make_loggers(group: Any, allow: Sequence[str], folder: Path) -> list[Logger]:
    """Make the loggers of a run, by name in the group, or the one that the group itself describes.

    Unless its options say otherwise, each keeps its files in the run's folder and calls the run by
    that folder's name, so that a resumed run goes on in the same place.

    Raises:
        ConfigError: A logger cannot be made, needs a package that is not installed, or has no name
            among others.
    """
    group = group or {}
    alone = not isinstance(group, dict) or "_target_" in group
    options = group.items() if isinstance(group, dict) else ()
    others = [name for name, value in options if isinstance(value, dict) and "_target_" in value]
    if alone and others:
        raise ConfigError(
            f"logger: names the class {group['_target_']} beside {', '.join(others)}, expected it "
            f"under a name.\n  In your file, write the logger's name, and its options below it, as "
            f"seqnets' own files do."
        )
    named = {"logger": group} if alone else {f"logger.{name}": o for name, o in group.items()}
    return [_make_logger(o, allow, folder, key) for key, o in named.items() if o is not None]


def _make_logger(options: Any, allow: Sequence[str], folder: Path, key: str) -> Logger:
    """Make a run's logger; see :func:`make_loggers`."""
    factory = make_one(options, allow, key, later=True)
    known = {"save_dir": str(folder), "version": folder.name, "run_name": folder.name}
    parameters = signature_of(factory.func).parameters
    asked = set(parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        asked.add("save_dir")  # for the class that it derives from
    missing = {name: known[name] for name in known.keys() & asked - factory.keywords.keys()}
    try:
        with option_errors(options, key):
            logger: Logger = factory(**missing)
    except SeqnetsError:
        raise
    except Exception as error:  # of whatever library it belongs to
        target = options["_target_"]
        extra = _LOGGER_EXTRAS.get(target.rpartition(".")[2])
        said = str(error).strip()
        if isinstance(error, ImportError) and extra:  # Lightning advises another way
            said = f"{said.partition(' HINT:')[0]}\n  Install it: pip install 'seqnets[{extra}]'"
        raise ConfigError(f"{key}: {target} cannot be made: {said}") from error
    return logger
