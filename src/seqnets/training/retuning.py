"""Options of an optimizer and its schedule that change when a run resumes.

Their saved states hold their options too, and loading these would undo the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

Options = Mapping[str, Any]
"""The configuration of an optimizer or schedule: its class, and its options by name."""


def retune_optimizer(optimizer: Optimizer, schedule: Any, before: Options, now: Options) -> None:
    """Apply the changed options to an optimizer whose state has been loaded.

    The learning rate is scaled along its schedule, as if the new one had been set from the first
    step.

    Args:
        optimizer: Built from the new options, with the resumed run's state.
        schedule: Its schedule, with its state; None if there is none.
        before: The options of the run so far.
        now: The new options.
    """
    names = _changed(before, now) & optimizer.defaults.keys()
    for group in optimizer.param_groups:
        for name in names - {"lr"}:
            group[name] = optimizer.defaults[name]
    if "lr" not in names:
        return
    (first, *_) = optimizer.param_groups
    old, new = before.get("lr", first.get("initial_lr", first["lr"])), optimizer.defaults["lr"]

    def scaled(rate: float) -> float:
        return new if rate == old or not old else rate * (new / old)

    for group in optimizer.param_groups:
        for name in {"lr", "initial_lr"} & group.keys():
            group[name] = scaled(group[name])
    of_schedule = {} if schedule is None else vars(schedule)
    for name in {"base_lrs", "_last_lr"} & of_schedule.keys():
        of_schedule[name] = [scaled(rate) for rate in of_schedule[name]]


def retune_schedule(schedule: Any, make: Callable[..., Any], before: Options, now: Options) -> None:
    """Apply the changed options to a schedule whose state has been loaded.

    What differs between schedules freshly built from the old and from the new options is copied
    over, attributes and numbers kept in the optimizer's groups, so progress is kept. The rate
    changes when the schedule next advances.

    Args:
        schedule: Built from the new options, with the resumed run's state.
        make: Builds a schedule of its class from an optimizer and options.
        before: The options of the run so far.
        now: The new options.
    """
    if not _changed(before, now):
        return
    old, new = (
        make(torch.optim.SGD([torch.zeros(1)], lr=1.0), **_options(given))
        for given in (before, now)
    )
    for name, value in _different(vars(old), vars(new), but={"optimizer"}):
        setattr(schedule, name, value)
    before_it, after_it = (made.optimizer.param_groups[0] for made in (old, new))
    for name, value in _different(before_it, after_it, but={"params", "lr"}):
        for group in schedule.optimizer.param_groups:
            group[name] = value


def _different(
    old: dict[str, Any], new: dict[str, Any], but: set[str]
) -> Iterator[tuple[str, Any]]:
    """What is new or has another value."""
    for name in new.keys() - but:
        if name not in old or old[name] != new[name]:
            yield name, new[name]


def _options(given: Options) -> dict[str, Any]:
    return {name: value for name, value in given.items() if not name.startswith("_")}


def _changed(before: Options, now: Options) -> set[str]:
    """Names of the options that changed; none if the class did."""
    if before.get("_target_") != now.get("_target_"):
        return set()
    return {name for name in {**before, **now} if before.get(name) != now.get(name)}
