"""Options of an optimizer and its schedule that are other ones from where a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

Options = Mapping[str, Any]
"""What a configuration says of one of both: its class, and the options by name."""


def retune_optimizer(optimizer: Optimizer, schedule: Any, before: Options, now: Options) -> None:
    """Give an optimizer, whose state is loaded, the options that are other ones now.

    A learning rate is one to begin with: what a schedule has made of the old one it makes of the
    new one, as if that had been there from the first step.

    Args:
        optimizer: Made of the options as they are now, with the state of the run that goes on.
        schedule: Its schedule, with its state; None if there is none.
        before: The options as they were.
        now: The options as they are.
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
    """Give a schedule, whose state is loaded, the options that are other ones now.

    It is told what a new one of these options has and one of the old options has not, so that how
    far it has come stays; the rate is another one from when it next advances.

    Args:
        schedule: Made of the options as they are now, with the state of the run that goes on.
        make: Makes a schedule of its class from an optimizer and options.
        before: The options as they were.
        now: The options as they are.
    """
    if not _changed(before, now):
        return
    old, new = (
        vars(make(torch.optim.SGD([torch.zeros(1)], lr=1.0), **_options(given)))
        for given in (before, now)
    )
    for name in new.keys() - {"optimizer"}:
        if name not in old or old[name] != new[name]:
            setattr(schedule, name, new[name])


def _options(given: Options) -> dict[str, Any]:
    return {name: value for name, value in given.items() if not name.startswith("_")}


def _changed(before: Options, now: Options) -> set[str]:
    """The options, by name, that are other ones now; none where it is another class."""
    if before.get("_target_") != now.get("_target_"):
        return set()
    return {name for name in {**before, **now} if before.get(name) != now.get(name)}
