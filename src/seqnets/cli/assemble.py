"""From a composed configuration to a dataset, a model and a trainer, for all verbs."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from seqnets.checks import check_count, is_whole
from seqnets.cli.build import build, option_errors
from seqnets.cli.console import told_if_slow
from seqnets.cli.kinds import check_kind, options_of
from seqnets.cli.names import UsageError
from seqnets.datasets import DataModule
from seqnets.errors import ConfigError, DeviceError, SeqnetsError, counted
from seqnets.training import AtomicCheckpointIO, Objective, SequenceModule
from seqnets.training.param_groups import ParamGroups, own_options
from seqnets.typing import Known, Sizes

Config = dict[str, Any]

SET = {
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


def plain(config: DictConfig) -> Config:
    """Resolve a composed configuration to plain containers.

    Raises:
        UsageError: A required value is missing, or ``allow`` is not a list of modules that exist.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(
            f"{missing[0]}: is not given and has no default.\n  Give it as {missing[0]}=VALUE."
        )
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    if not isinstance(resolved["allow"], list):
        raise UsageError(f"allow: is {resolved['allow']!r}, expected a list: 'allow=[MODULE]'.")
    for name in resolved["allow"]:
        if not isinstance(name, str) or not _exists(name.partition(".")[0]):
            raise UsageError(
                f"allow: {name!r} is in no module that can be imported.\n"
                "  Modules are named with dots and must be on Python's path (PYTHONPATH)."
            )
    return resolved


def _exists(module: str) -> bool:
    """Whether there is a module of this name; it is not imported."""
    try:
        return module in sys.modules or find_spec(module) is not None
    except ValueError:  # an empty name
        return False


def check_seed(seed: Any) -> None:
    """Raise UsageError unless this is a valid seed of random numbers."""
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise UsageError(f"seed: is {seed!r}, expected a whole number, 0 to {2**32 - 1}.")


def check_filled(**paths: Any) -> None:
    """Raise UsageError for an empty path, which would mean the current folder."""
    for key, path in paths.items():
        if path == "":
            raise UsageError(f"{key}: is empty, expected a path.\n  {key}=. is the current folder.")


def check_truths(**options: Any) -> None:
    """Raise UsageError unless each option is a boolean: ``no`` is text, and would count as true."""
    for key, value in options.items():
        if not isinstance(value, bool):
            raise UsageError(f"{key}: is {value!r}, expected true or false.")


def check_new(key: str, path: Path | str, overwrite: bool) -> None:
    """Raise ConfigError for a file that exists and is not to be overwritten."""
    check_truths(overwrite=overwrite)
    if Path(path).expanduser().exists() and not overwrite:
        raise ConfigError(
            f"{key}: {path} exists already, expected a new file.\n"
            f"  Name another with {key}=FILE, or set overwrite=true."
        )


def make_one(
    options: Any, allow: Sequence[str], key: str, kind: type = object, *, later: bool = False
) -> Any:
    """Make the object that a group of a configuration describes.

    Args:
        options: The group's part of the configuration.
        allow: Modules of the user's own that the configuration may name.
        key: The group's key.
        kind: The class that the object, or that of a factory, has to be one of.
        later: Whether to make a factory, which the caller passes what the data determine.

    Raises:
        ConfigError: The group names no class, the class cannot be made (see :func:`build`), or it
            is of another kind.
    """
    if not isinstance(options, dict) or "_target_" not in options:
        raise ConfigError(
            f"{key}: has no _target_, expected the class to make.\n"
            "  Name it in the group's file: _target_: MODULE.CLASS"
        )
    build({"_target_": options["_target_"], "_partial_": True}, allow, key)  # is it allowed?
    target = get_object(options["_target_"])
    if isinstance(target, type) and not issubclass(target, kind):  # a function may make anything
        public = ".".join(kind.__module__.split(".")[:2])
        raise ConfigError(
            f"{key}: {options['_target_']} is no {kind.__name__}, expected a class that derives "
            f"from {public}.{kind.__name__}."
        )
    return build({**options, "_partial_": True} if later else options, allow, key)


def make_data(config: Config, allow: Sequence[str]) -> DataModule:
    """Make a dataset, and read and check its data."""
    options = config["dataset"]
    paths = [key for key in options if key.rpartition("_")[2] in ("path", "root", "cache")]
    check_filled(**{f"dataset.{key}": options[key] for key in paths})
    data: DataModule = make_one(config["dataset"], allow, "dataset", DataModule)
    with told_if_slow():
        data.prepare_data()
        data.setup()
    return data


def make_module(config: Config, known: Known, allow: Sequence[str]) -> SequenceModule:
    """Make a model for a dataset, given what it knows, with objective, optimizer and schedule."""
    optimizer = make_one(config["optimizer"], allow, "optimizer", later=True)
    schedule = config["scheduler"]
    scheduler = make_one(schedule, allow, "scheduler", later=True) if schedule else None
    objective = make_one(config["objective"], allow, "objective", Objective)
    _try_out(config, optimizer, scheduler)
    model = make_model(config, known["sizes"], allow)
    groups = config.get("param_groups") or {}
    module = SequenceModule(model, objective, known, optimizer, scheduler, groups)
    _try_out_groups(config["optimizer"]["_target_"], optimizer, groups)
    return module


def _try_out(config: Config, optimizer: partial[Any], scheduler: Callable[..., Any] | None) -> None:
    """Raise ConfigError now if the classes refuse their options, and not when training starts."""
    with _refusals("optimizer", config["optimizer"]["_target_"]):
        tried = optimizer([nn.Parameter(torch.zeros(1))])
    if scheduler is not None:
        with _refusals("scheduler", config["scheduler"]["_target_"]):
            counts = "total_steps" in inspect.signature(scheduler).parameters
            scheduler(tried, **({"total_steps": 1} if counts else {}))


def _try_out_groups(target: str, optimizer: partial[Any], groups: ParamGroups) -> None:
    """Raise ConfigError now if the optimizer takes no groups, or refuses one's options."""
    taken = options_of(optimizer.func)
    for name in groups:
        for option, value in own_options(groups, name).items():
            if option in taken:
                check_kind(f"param_groups.{name}.{option}", value, taken[option])
    if groups:
        with _refusals("param_groups", target):
            optimizer([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)])
    for name in groups:
        with _refusals(f"param_groups.{name}", target):  # torch checks no options of groups
            optimizer([nn.Parameter(torch.zeros(1))], **own_options(groups, name))


@contextlib.contextmanager
def _refusals(key: str, target: str) -> Iterator[None]:
    """Turn a class's refusal of its options into a ConfigError."""
    try:
        yield
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, SeqnetsError):
            raise ConfigError(f"{key}: {error}") from error
        why = str(error).rstrip(".")
        raise ConfigError(f"{key}: {target} refuses its options: {why}.") from error


def make_model(config: Config, sizes: Sizes, allow: Sequence[str]) -> nn.Module:
    """Make a model, and pass it those of the dataset's sizes that its constructor takes.

    Raises:
        ConfigError: The model needs a size that the dataset does not have, or has no such option.
    """
    factory: Callable[..., nn.Module] = make_one(
        config["model"], allow, "model", nn.Module, later=True
    )
    parameters = inspect.signature(factory).parameters.values()
    asked = {p.name for p in parameters}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        asked |= {"input_size", "vocab_size"}  # options of the encoder below
    required = {p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_KEYWORD}
    absent = sorted(required - sizes.keys() - config["model"].keys() - {"options"})
    model, dataset = config["model"]["_target_"], config["dataset"]["_target_"]
    if absent:
        raise ConfigError(
            f"model: {model} asks for {', '.join(absent)}, which {dataset} does not have.\n"
            f"  It has {', '.join(sizes)}. Choose a model for such data: `seqnets list models`."
        )
    with option_errors(config["model"], "model"):
        return factory(**{name: size for name, size in sizes.items() if name in asked})


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
    parameters = inspect.signature(factory.func).parameters
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
        ConfigError: Lightning refuses the options.
    """
    for name in (name for name in SET if name in config["trainer"]):
        raise UsageError(
            f"trainer.{name}: is set by the command itself, expected it to be left out."
            + (f"\n  {SET[name]}" if trains else "")
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
    return trainer


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
        raise ConfigError(f"trainer: Lightning does not take these options: {error}") from error


def _check_limits(options: Config) -> None:
    """Raise ConfigError for values that Lightning accepts but fails on later, or misunderstands."""
    counts = ("accumulate_grad_batches", "check_val_every_n_epoch")
    given = {name: value for name, value in options.items() if value is not None}
    check_count("trainer", **{name: given[name] for name in counts if name in given})
    clip, often = given.get("gradient_clip_val", 0), given.get("val_check_interval", 1)
    if not clip >= 0:
        raise ConfigError(
            f"trainer: gradient_clip_val is {clip!r}, expected a number of at least 0.\n"
            "  0 or null clips nothing."
        )
    if not {"max_epochs", "max_time"} & given.keys() and given.get("max_steps", -1) == -1:
        raise ConfigError(
            "trainer: max_epochs is null beside no other limit, expected one: Lightning would take "
            "it for 1000 epochs.\n  -1 is no limit."
        )
    longest = given.get("max_time")
    if isinstance(longest, (int, float)):
        raise ConfigError(
            f"trainer: max_time is {longest!r}, expected days, hours, minutes and seconds.\n"
            "  Two hours are trainer.max_time=00:02:00:00."
        )
    if isinstance(often, (int, float)) and not often > 0:
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
