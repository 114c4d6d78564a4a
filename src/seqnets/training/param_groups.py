"""Parameters with options of their own in the optimizer, chosen by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.optim import Optimizer

from seqnets.errors import CheckpointError, ConfigError

ParamGroups = Mapping[str, Mapping[str, Any]]
"""By name: "params", a pattern of parameters' names or several, and options of the optimizer."""


def check_groups(groups: Any) -> None:
    """Raise ConfigError unless each group has patterns."""
    if not isinstance(groups, Mapping):
        raise ConfigError(f"param_groups: is {groups!r}, expected groups by name.")
    for group, asked in groups.items():
        patterns: Any = asked.get("params") if isinstance(asked, Mapping) else None
        listed = [patterns] if isinstance(patterns, str) else patterns
        several = isinstance(listed, list | tuple) and bool(listed)
        if not several or not all(isinstance(pattern, str) for pattern in listed):
            raise ConfigError(
                f"param_groups.{group}: is {asked!r}, expected params, a pattern or several, and "
                "options of the optimizer.\n  For example: {params: '*bias*', weight_decay: 0}"
            )


def named_by_group(model: nn.Module, groups: ParamGroups) -> dict[str, list[str]]:
    """The names of each group's parameters; one that several groups match is the first one's.

    Raises:
        ConfigError: A pattern matches no parameter that earlier groups leave.
    """
    left = [name for name, _ in model.named_parameters()]
    found: dict[str, list[str]] = {}
    for group, asked in groups.items():
        patterns = asked["params"]
        matched: dict[str, None] = {}  # in order
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            names = [name for name in left if fnmatchcase(name, pattern)]
            if not names:
                raise ConfigError(_unmatched(group, pattern, left))
            matched |= dict.fromkeys(names)
        found[group] = list(matched)
        left = [name for name in left if name not in matched]
    return found


def _unmatched(group: str, pattern: str, left: list[str]) -> str:
    listed = ", ".join(left[:20]) + (", …" if len(left) > 20 else "")
    return (
        f"param_groups.{group}: {pattern!r} matches no parameter that earlier groups leave, "
        f"expected one of {listed or 'none: all are in groups'}.\n"
        "  * stands for any characters. Shared parameters go by their first name."
    )


def to_optimize(model: nn.Module, groups: ParamGroups) -> Iterable[Any]:
    """A model's parameters, as its optimizer takes them; those that no group matches come first.

    Raises:
        ConfigError: A group cannot be formed; see :func:`named_by_group`.
    """
    if not groups:
        return model.parameters()
    named, found = dict(model.named_parameters()), named_by_group(model, groups)
    grouped = {name for names in found.values() for name in names}
    others = [parameter for name, parameter in named.items() if name not in grouped]
    made: list[dict[str, Any]] = [{"params": others}] if others else []
    for group, names in found.items():
        params = [named[name] for name in names]
        made.append({**own_options(groups, group), "params": params, "name": group})
    return made


def own_options(groups: ParamGroups, name: str) -> dict[str, Any]:
    """The options of a group's own; none if there is no such group."""
    return {key: value for key, value in groups.get(name, {}).items() if key != "params"}


def options_of_group(config: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a configuration has for one of an optimizer's groups."""
    own = own_options(config.get("param_groups") or {}, group.get("name", ""))
    return {**(config.get("optimizer") or {}), **own}


def check_options(optimizer: Optimizer, groups: ParamGroups) -> None:
    """Raise ConfigError if the optimizer has no such options; torch would ignore them."""
    for group in groups:
        unknown = sorted(own_options(groups, group).keys() - optimizer.defaults.keys())
        if unknown:
            raise ConfigError(
                f"param_groups.{group}: has {', '.join(unknown)}, expected options of "
                f"{type(optimizer).__name__}: {', '.join(sorted(optimizer.defaults))}."
            )


def check_kept(optimizer: Optimizer, groups: ParamGroups, schedule: Any) -> None:
    """Raise ConfigError if a schedule has set options that groups have of their own.

    Learning rates that it sets group by group are meant.
    """
    begun = {first_rate(group) for group in optimizer.param_groups}
    for group in optimizer.param_groups:
        for option, asked in own_options(groups, group.get("name", "")).items():
            if option == "lr":
                kept = len(begun) > 1 or first_rate(group) == asked
            else:
                kept = _plain(group[option]) == _plain(asked)
            if not kept:
                name, count = type(schedule).__name__, len(optimizer.param_groups)
                raise ConfigError(
                    f"scheduler: {name} sets {option} for all parameters, expected it to keep "
                    f"param_groups.{group['name']}.{option}.\n"
                    f"  Give {name} lists of {count} rates, set cycle_momentum=False against other "
                    f"options, or take another schedule."
                )


def first_rate(group: Mapping[str, Any]) -> float:
    """The learning rate with which a group's schedule begins."""
    return group.get("initial_lr", group["lr"])


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_same(saved: Mapping[str, list[str]], now: Mapping[str, list[str]], path: str) -> None:
    """Raise CheckpointError unless a checkpoint's groups have the parameters of this run's."""
    if list(saved.items()) == list(now.items()):
        return
    raise CheckpointError(
        f"Checkpoint {path}: has other param_groups than this run.\n"
        f"  got      {_listed(saved)}\n"
        f"  expected {_listed(now)}\n"
        "  The optimizer's state is saved by group. A resumed run may change a group's options, "
        "not its parameters."
    )


def _listed(groups: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{name}: {', '.join(names)}" for name, names in groups.items()) or "none"


def rates_by_name(optimizer: Optimizer) -> Iterator[tuple[str, float]]:
    """The learning rates, for loggers: the first group's, and those of others that begin apart."""
    first, *others = optimizer.param_groups
    yield "learning_rate", first["lr"]
    for place, group in enumerate(others, 1):
        if first_rate(group) != first_rate(first):
            yield f"learning_rate/{group.get('name', place)}", group["lr"]
