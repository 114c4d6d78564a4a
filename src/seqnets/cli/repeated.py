"""A command that is given again to resume the run that it started, as with ``resume=auto``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqnets.cli.arguments import config_flags, config_folders, key_of
from seqnets.cli.keys import composed, groups_of
from seqnets.quoting import override_list

_EACH_TIMES_OWN = ("allow", "output", "resume")
"""Keys that a checkpoint does not determine."""


def output_of(verb: str, arguments: Sequence[str]) -> dict[str, str]:
    """The folder of runs, by its key, that a command or a file that it chooses names.

    It is empty if the command cannot be composed, which Hydra says later.
    """
    try:
        return {"output": composed(verb, _overrides(arguments), config_folders(arguments)).output}
    except (HydraException, OmegaConfBaseException):
        return {}


def without_settled(verb: str, arguments: Sequence[str], saved: dict[str, Any]) -> list[str]:
    """The arguments without the choices that a checkpoint has settled, if they are the same.

    They are if the command composes the checkpoint's configuration, but for single keys that it
    sets. Otherwise Hydra refuses the choices: those that differ, or all if what differs was not
    chosen. Another seed is set for the run to refuse. Modules that a choice allows stay allowed.

    Args:
        verb: The verb.
        arguments: The command line, without the verb.
        saved: The checkpoint's configuration.
    """
    folders = config_folders(arguments)
    groups = groups_of(verb, folders)
    overrides = _overrides(arguments)
    settled = [a for a in overrides if key_of(a) in groups or a[0] in "+~"]
    if not settled:
        return list(arguments)
    theirs = OmegaConf.create(saved)
    try:
        ours = composed(verb, overrides, folders)
    except (HydraException, OmegaConfBaseException):  # Hydra says why
        return list(arguments)
    OmegaConf.set_struct(ours, False)
    absent = {a for a in overrides if a[0] == "~" and OmegaConf.select(theirs, key_of(a)) is None}
    seed, ours.seed = ours.seed, theirs.seed  # other parts follow from it
    for key in map(key_of, overrides):
        if key not in groups:
            value = OmegaConf.select(ours, key)
            _set(ours, key, value)
            _set(theirs, key, value)
    if seed != ours.seed and "seed" not in map(key_of, overrides):
        arguments = [*arguments, f"seed={seed}"]
    choices = {a for a in settled if key_of(a) in groups}
    if (our := _plain(ours)) != (their := _plain(theirs)):
        others = {key_of(a) for a in choices if _part(our, a) != _part(their, a)}
        inner = {a for a in choices if key_of(a) in others and not _outer(key_of(a), others)}
        return [a for a in arguments if a in inner or a not in choices or not inner]
    kept = [a for a in arguments if a not in choices | absent]
    if (allowed := ours.allow) and "allow" not in map(key_of, arguments):
        kept.insert(0, override_list("allow", allowed))
    return ["++" + a.lstrip("+") if a in settled and a[0] == "+" else a for a in kept]


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments that set or remove keys of the configuration."""
    flags = config_flags(arguments)
    return [argument for argument in arguments if argument not in flags and _is_override(argument)]


def _is_override(argument: str) -> bool:
    """Whether an argument sets or removes a key of the configuration, and no option of Hydra's."""
    is_one = argument[:1] == "~" or (argument[:1] != "-" and "=" in argument)
    return is_one and not key_of(argument).startswith("hydra")


def _set(config: Any, key: str, value: Any) -> None:
    """Give a dotted key a value; remove one that is to be None."""
    outer, _, last = key.rpartition(".")
    if value is not None:
        OmegaConf.update(config, key, value)
    elif node := OmegaConf.select(config, outer) if outer else config:
        node.pop(last, None)


def _part(plain: Any, choice: str) -> Any:
    """The part of a configuration that a choice makes; None if it has no place of its own."""
    place = key_of(choice).replace("/", ".").replace("model.option", "model.cell_options")
    return OmegaConf.select(OmegaConf.create(plain), place)


def _outer(group: str, others: Collection[str]) -> bool:
    """Whether a group is around one of others, which then may be all that differs in its part."""
    return any(other.startswith(f"{group}/") for other in others)


def _plain(config: Any) -> Any:
    """A configuration in plain containers, without what a checkpoint does not determine."""
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        return None
    return {key: value for key, value in plain.items() if key not in _EACH_TIMES_OWN}
