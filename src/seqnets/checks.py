"""Options that are counts, shares, or one of several, checked in the same words; and torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeGuard

import torch
from torch.nn.utils import parametrize

from seqnets.errors import ConfigError, DtypeError


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number: true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, whole or not: true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def name_of(given: Any) -> str:
    """The name of a thing's class: torch gives a module with computed weights another class."""
    return parametrize.type_before_parametrizations(given).__name__


def check_count(who: str, least: int = 1, **options: int) -> None:
    """Raise ConfigError unless each option is a whole number of at least ``least``."""
    for name, value in options.items():
        if not is_whole(value) or value < least:
            raise ConfigError(
                f"{who}: {name} is {value!r}, expected a whole number of at least {least}."
            )


def check_n_best(who: str, n_best: int, beam_size: int) -> None:
    """Raise ConfigError unless a beam of this size has that many candidates, at least one."""
    check_count(who, n_best=n_best)
    if n_best > beam_size:
        raise ConfigError(
            f"{who}: n_best is {n_best}, expected at most {beam_size}, which beam_size is.\n"
            f"  A search keeps beam_size candidates: beam_size={n_best} has as many."
        )


def check_number(
    who: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    **options: float,
) -> None:
    """Raise ConfigError unless each option is a number within the bounds, or finite without any."""
    bounds = {"above": above, "of at least": least, "of at most": most, "below": below}
    told = " and ".join(f"{k} {v}" for k, v in bounds.items() if v is not None)
    told = told if least is None or most is None else f"from {least} to {most}"
    expected = f"a number {told}" if told else "a finite number"
    for name, value in options.items():
        inside = is_number(value) and (
            (bool(told) or math.isfinite(value))
            and (above is None or value > above)
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (below is None or value < below)
        )
        if not inside:
            raise ConfigError(f"{who}: {name} is {value!r}, expected {expected}.")


def check_choice(who: str, choices: Iterable[Any], **options: Any) -> None:
    """Raise ConfigError unless each option is one of the choices."""
    known = list(choices)
    for name, value in options.items():
        if value not in known:
            raise ConfigError(
                f"{who}: {name} is {value!r}, expected one of {', '.join(map(str, known))}."
            )


def check_flags(who: str, **flags: bool) -> None:
    """Raise DtypeError unless each flag is true or false: "no" would count as true."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise DtypeError(f"{who}: {name} is {value!r}, expected True or False.")


def check_probability(who: str, **options: float) -> None:
    """Raise ConfigError unless each option is a probability in [0, 1)."""
    for name, value in options.items():
        if not is_number(value) or not 0 <= value < 1:
            raise ConfigError(f"{who}: {name} is {value!r}, expected a probability in [0, 1).")


def check_fractions(who: str, **fractions: float) -> None:
    """Raise ConfigError unless each fraction is above 0 and all leave something for training."""
    check_number(who, above=0, below=1, **fractions)
    if sum(fractions.values()) >= 1:
        raise ConfigError(
            f"{who}: {' + '.join(fractions)} is {sum(fractions.values()):g}, expected below 1.\n"
            "  The rest is what the model learns from."
        )


def is_torch_from(*release: int) -> bool:
    """Whether torch is of a release, (major, minor), or a later one.

    Only numbers are compared: for a TorchVersion, a nightly build is below its release.
    """
    return tuple(map(int, torch.__version__.split(".")[:2])) >= release
