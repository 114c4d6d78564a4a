"""From a verb's options to a dataset, and to a model with all that its training needs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from hydra.utils import get_object
from torch import nn

from seqnets.cli.build import build, option_errors
from seqnets.cli.console import told_if_slow
from seqnets.cli.kinds import check_kind, options_of
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config, check_filled
from seqnets.datasets import DataModule
from seqnets.errors import ConfigError, SeqnetsError
from seqnets.signatures import signature_of
from seqnets.training import Objective, SequenceModule
from seqnets.training.param_groups import ParamGroups, own_options
from seqnets.training.schedules import takes_total_steps
from seqnets.typing import Known, Sizes


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
    data: DataModule = make_one(options, allow, "dataset", DataModule)
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
    rule = config.get("learning")
    learning = make_one(rule, allow, "learning", nn.Module, later=True) if rule else None
    module = SequenceModule(model, objective, known, optimizer, scheduler, groups, learning)
    _try_out_groups(config["optimizer"]["_target_"], optimizer, groups)
    return module


def _try_out(config: Config, optimizer: partial[Any], scheduler: Callable[..., Any] | None) -> None:
    """Raise ConfigError now if the classes refuse their options, and not when training starts."""
    with _refusals("optimizer", config["optimizer"]["_target_"]):
        tried = optimizer([nn.Parameter(torch.zeros(1))])
    if scheduler is not None:
        with _refusals("scheduler", config["scheduler"]["_target_"]):
            scheduler(tried, **({"total_steps": 1} if takes_total_steps(scheduler) else {}))


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


def check_sizes(config: Config, sizes: Sizes) -> None:
    """Raise UsageError for a size of the model that the dataset determines, and is another."""
    for name, given in config["model"].items():
        if given is not None and name in sizes and given != sizes[name]:
            raise UsageError(
                f"model.{name}: is {given!r}, expected {sizes[name]}, which follows from the data."
                "\n  Leave it out."
            )


def make_model(config: Config, sizes: Sizes, allow: Sequence[str]) -> nn.Module:
    """Make a model, and pass it those of the dataset's sizes that its constructor takes.

    Raises:
        ConfigError: The model needs a size that the dataset does not have, or has no such option.
    """
    factory: Callable[..., nn.Module] = make_one(
        config["model"], allow, "model", nn.Module, later=True
    )
    parameters = signature_of(factory).parameters.values()
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
