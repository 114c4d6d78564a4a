"""Hydra's flags that the verbs take: their names, values and combinations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from seqnets.cli.arguments import key_of, root_of
from seqnets.cli.keys import own_of
from seqnets.cli.names import UsageError, near

MULTIRUN = "--multirun"
"""The flag that asks for a sweep."""

_SHORT = {
    "-m": MULTIRUN,
    "-r": "--run",
    "-c": "--cfg",
    "-p": "--package",
    "-i": "--info",
    "-cd": "--config-dir",
    "-sc": "--shell-completion",
}

_SWITCHES = (MULTIRUN, "--run", "--resolve", "--hydra-help", "--shell-completion")
"""Flags without a value."""

_VALUED = {"--cfg": "job, hydra or all", "--package": "a key", "--config-dir": "a folder"}
"""Flags with a value, and what is expected of it."""

_CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
"""The values of flags that take one of a few; ``--info`` may have none."""

_FLAGS = (*_SWITCHES, *_VALUED, "--info")

_DOES = (MULTIRUN, "--run", "--cfg", "--info", "--hydra-help", "--shell-completion")
"""Flags that say what to do, of which one is possible at a time."""

_NEEDED = {"--resolve": "--cfg", "--package": "--cfg"}
"""Flags that change what another one does."""

_REFUSED = {
    "--config-name": "A file of your own is conf/experiment/NAME.yaml, called by --config-dir conf "
    "experiment=NAME.",
    "--config-path": "--config-dir FOLDER adds your own.",
    "--experimental-rerun": "resume=RUN continues a run.",
    "--version": "`seqnets --version` prints it.",
}
"""Flags of Hydra's that seqnets has no use for, and what to do instead."""


def arranged(verb: str, arguments: Sequence[str]) -> list[str]:
    """The overrides of a command line, then its flags, since argparse takes none in between.

    Flags come out by their full names, with their values after an equals sign.

    Args:
        verb: The verb that was called.
        arguments: The command line, without the verb.

    Raises:
        UsageError: There is no such flag, it lacks its value or has a wrong one, or it contradicts
            another.
    """
    overrides: list[str] = []
    flags: dict[str, str | None] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        given, equals, value = argument.partition("=")
        flag = _full_name(verb, given, argument)
        if not equals and _takes(flag, rest):
            value = rest.pop(0)
        _check_value(flag, value, bool(equals))
        if flags.setdefault(flag, value) != value:
            raise UsageError(f"{flag}: is {flags[flag]} and {value}, expected one of the two.")
    _check_combination(verb, overrides, flags)
    return [*overrides, *(f"{flag}={value}" if value else flag for flag, value in flags.items())]


def _full_name(verb: str, given: str, argument: str) -> str:
    """The flag that a word stands for, which may be cut short as long as it is clear."""
    given = _SHORT.get(given, given)
    if given in _FLAGS:
        return given
    keys, groups = own_of(verb)
    key = key_of(argument.lstrip("-"))
    if given.startswith("--") and root_of(key) in keys | groups:
        raise UsageError(
            f"{argument}: is no flag, expected {key}=VALUE, without the dashes.\n"
            f"  `seqnets {verb} --help` explains the keys."
        )
    alike = [*_beginning(given, _FLAGS)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UsageError(f"{given}: may be {' or '.join(alike)}, expected one of them in full.")
    refused = next(_beginning(given, _REFUSED), given)
    advice = _REFUSED.get(refused, near(given, [*_FLAGS, "--help"]))
    raise UsageError(f"{given}: is no flag of `seqnets {verb}`.\n  {advice}")


def _takes(flag: str, rest: Sequence[str]) -> bool:
    """Whether a flag takes the next word as its value."""
    if not rest or rest[0].startswith("-"):
        return False
    return flag in _VALUED or rest[0] in _CHOICES.get(flag, ())


def _beginning(given: str, flags: Iterable[str]) -> Iterator[str]:
    """Yield the flags that begin with a word, at least two dashes and a letter."""
    if len(given) > len("--") and given.startswith("--"):
        yield from (flag for flag in flags if flag.startswith(given))


def _check_value(flag: str, value: str, given: bool) -> None:
    """Raise UsageError for a value that a flag lacks, does not take, or does not know."""
    choices = _CHOICES.get(flag)
    if flag in _SWITCHES and given:
        raise UsageError(f"{flag}: is {value!r}, expected no value.")
    if flag in _VALUED and not value:
        raise UsageError(f"{flag}: has no value, expected {_VALUED[flag]}.")
    if choices and value and value not in choices:
        raise UsageError(f"{flag}: is {value!r}.\n  {near(value, choices)}")


def _check_combination(
    verb: str, overrides: Sequence[str], flags: Mapping[str, str | None]
) -> None:
    """Raise UsageError for flags that exclude each other, or that do nothing by themselves."""
    asked = [flag for flag in flags if flag in _DOES]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]}: came with {asked[1]}, expected one of the two.")
    for flag in (flag for flag in flags if flag in _NEEDED):
        if _NEEDED[flag] not in flags:
            raise UsageError(
                f"{flag}: came without {_NEEDED[flag]}, expected both.\n"
                f"  `seqnets {verb} --cfg job {flag}{'=KEY' * (flag in _VALUED)}` prints a "
                "configuration and runs nothing."
            )
    if MULTIRUN in flags and not overrides:
        raise UsageError(
            f"{MULTIRUN}: got no values to try, expected those of one key or more.\n"
            "  Give them as KEY=ONE,ANOTHER."
        )
