"""Options of an optimizer and its schedule that change when a run resumes.

Their saved states hold their options too, and loading these would undo the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.optim import Optimizer

from seqnets.training.param_groups import first_rate, options_of_group
from seqnets.training.schedules import takes_total_steps
from seqnets.training.trainers import total_steps

Options = Mapping[str, Any]
"""The configuration of an optimizer or schedule: its class, and its options by name."""


def retune(
    optimizer: Optimizer,
    schedule: Any,
    make: Callable[..., Any] | None,
    before: Options,
    now: Options,
    trainer: Trainer,
) -> None:
    """Apply the options of optimizer and schedule that a resumed run has changed.

    Args:
        optimizer: The run's, with its state.
        schedule: Its schedule, with its state; None if there is none.
        make: Built the schedule.
        before: The run's configuration so far.
        now: Its new configuration.
        trainer: The run's.
    """
    of_schedule = [config.get("scheduler") or {} for config in (before, now)]
    if isinstance(make, partial):
        if takes_total_steps(make.func):
            total = total_steps(trainer)
            totals = getattr(schedule, "total_steps", total), total
            of_schedule = [  # a partial's options are all there is without a configuration
                {**(options or make.keywords), "total_steps": steps}
                for options, steps in zip(of_schedule, totals, strict=True)
            ]
        retune_schedule(schedule, make.func, *of_schedule)
    of_groups = [
        (options_of_group(before, group), options_of_group(now, group))
        for group in optimizer.param_groups
    ]
    retune_optimizer(optimizer, schedule, of_groups)


def retune_optimizer(
    optimizer: Optimizer, schedule: Any, options: Sequence[tuple[Options, Options]]
) -> None:
    """Apply the changed options to an optimizer whose state has been loaded.

    A learning rate is scaled along its schedule, as if the new one had been set from the first
    step.

    Args:
        optimizer: Built from the new options, with the resumed run's state.
        schedule: Its schedule, with its state; None if there is none.
        options: Of each parameter group, those of the run so far and the new ones.
    """
    defaults, (first, *_) = optimizer.defaults, optimizer.param_groups
    of_schedule = {} if schedule is None else vars(schedule)
    for place, group in enumerate(optimizer.param_groups):
        before, now = options[place]
        names = _changed(before, now) & defaults.keys()
        for name in names - {"lr"}:
            group[name] = now.get(name, defaults[name])
        if "lr" not in names:
            continue
        usual = group if "name" in group else first
        old = before.get("lr", first_rate(usual))
        new = now.get("lr", defaults["lr"])
        for name in {"lr", "initial_lr"} & group.keys():
            group[name] = _scaled(group[name], old, new)
        for name in {"base_lrs", "_last_lr"} & of_schedule.keys():
            of_schedule[name] = rates = list(of_schedule[name])
            rates[place] = _scaled(rates[place], old, new)


def _scaled(rate: float, old: float, new: float) -> float:
    """A rate of a schedule that began at ``old``, as if it had begun at ``new``."""
    return new if rate == old or not old else rate * (new / old)


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
    groups = schedule.optimizer.param_groups
    old, new = (make(_stand_in(len(groups)), **_options(given)) for given in (before, now))
    for name, value in _different(vars(old), vars(new), but={"optimizer"}):
        setattr(schedule, name, value)
    of_groups = zip(groups, old.optimizer.param_groups, new.optimizer.param_groups, strict=True)
    for group, before_it, after_it in of_groups:
        for name, value in _different(before_it, after_it, but={"params", "lr"}):
            group[name] = value


def _stand_in(groups: int) -> Optimizer:
    """An optimizer with so many parameter groups."""
    return torch.optim.SGD([{"params": [torch.zeros(1)]} for _ in range(groups)], lr=1.0)


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
