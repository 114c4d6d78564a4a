"""Checks of a command line, for what Hydra would accept but ignore or misunderstand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from omegaconf import DictConfig, OmegaConf

from seqnets.cli.arguments import (
    check_searched,
    config_folders,
    key_of,
    parsed,
    root_of,
    searched,
)
from seqnets.cli.keys import LIST_GROUPS, known_keys, own_of
from seqnets.cli.listing import configs, options
from seqnets.cli.names import UsageError, near
from seqnets.quoting import shell

_ROOTED = ("experiment", "suite")
"""Config groups whose files set keys at the root."""

_ADVICE_OF_FILES = "Begin the file with the line `# @package _global_`."

_PACKAGED = re.compile(r"\s*#\s*@package\b")
"""The first line of a file that says where in the configuration it stands."""


def check_arguments(verb: str, arguments: Sequence[str]) -> None:
    """Check a command line before its configuration is composed.

    Raises:
        UsageError: It names no key, searches what is no folder, would hide a file of the user's,
            remove a list or what the verb needs, change what a checkpoint determines, give a group
            no name, too many or one twice, give a name to a key in place of its group, or sweep
            over no values.
    """
    _check_keys_have_names(arguments)
    check_searched(arguments)
    _check_no_file_is_hidden(arguments)
    _check_nothing_needed_is_removed(verb, arguments)
    _check_no_list_is_removed(arguments)
    _check_checkpoint_is_not_contradicted(verb, arguments)
    _check_groups_are_named(verb, arguments)
    _check_sweeps_have_values(arguments)


def _check_keys_have_names(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if argument[:1] != "-" and not key_of(argument):
            raise UsageError(f"{argument!r}: names no key, expected KEY=VALUE.")


def _check_no_file_is_hidden(arguments: Sequence[str]) -> None:
    others = searched(arguments).values()
    for folder in config_folders(arguments):
        named = "hydra.searchpath" if folder in others else "--config-dir"
        for path in sorted(folder.rglob("*.yaml")):
            if (configs() / path.relative_to(folder)).exists():
                raise UsageError(
                    f"{named}: {path} has the name of a file of seqnets' own, which would be "
                    f"taken instead.\n  Give it another name."
                )


def _check_nothing_needed_is_removed(verb: str, arguments: Sequence[str]) -> None:
    keys, groups = own_of(verb)
    groups -= set(_ROOTED)
    for argument in arguments:
        key = argument[1:].partition("=")[0]
        if argument[:1] == "~" and key in keys | groups:
            choices = " or ".join(options(key)) if key in groups else "VALUE"
            raise UsageError(
                f"{argument}: removes what `seqnets {verb}` needs, expected another value.\n"
                f"  Give it as {key}={choices}."
            )


def _check_no_list_is_removed(arguments: Sequence[str]) -> None:
    for argument in arguments:
        key = argument[1:].partition("=")[0]
        if argument[:1] == "~" and key in LIST_GROUPS and key not in _ROOTED:
            raise UsageError(
                f"{argument}: cannot change a list, expected the list that is wanted.\n"
                f"  None at all is {shell(f'{key}=[]')}."
            )


def _check_checkpoint_is_not_contradicted(verb: str, arguments: Sequence[str]) -> None:
    keys, groups = own_of(verb)
    if "checkpoint" not in keys:
        return
    for argument in arguments:
        key = key_of(argument)
        root = root_of(key)
        own = root in keys | groups or root == "hydra"  # of its options some are in configs/
        if "=" in argument and (configs() / root).is_dir() and not own:
            raise UsageError(
                f"{key}: is determined by the checkpoint, expected no override.\n"
                f"  `seqnets {verb}` takes {', '.join(sorted(keys | groups))}."
            )


def _check_groups_are_named(verb: str, arguments: Sequence[str]) -> None:
    for o in parsed(arguments):
        group = o.key_or_group
        value = o.value()
        if "." in group:
            known = [*options(meant := group.replace(".", "/"))]
            several = value if isinstance(value, list) else getattr(value, "list", [value])
            if any(name in known for name in several):  # a list's, a sweep's or one
                given = (o.input_line or "").partition("=")[2]
                raise UsageError(
                    f"{o.input_line}: names an option of a group, expected {meant}={given}."
                )
        if not (configs() / group).is_dir():
            continue
        if o.is_delete():
            if isinstance(value, list):
                raise _not_a_name(group, value)
            continue
        if o.is_sweep_override():
            names = value.list if isinstance(value, ChoiceSweep) else []
            wrong = [name for name in names if not isinstance(name, (str, list, QuotedString))]
            if wrong:
                raise _not_a_name(group, wrong[0])
            continue
        if isinstance(value, list) and group not in LIST_GROUPS:  # Hydra would take the last one
            raise UsageError(
                f"{group}: got several, {', '.join(map(str, value))}, expected one.\n"
                f"  A run with each: seqnets {verb} -m {group}={','.join(map(str, value))}"
            )
        if not isinstance(value, (str, list)):
            raise _not_a_name(group, value)
        names = value if isinstance(value, list) else [value]
        if twice := [name for name in names if names.count(name) > 1]:  # Hydra would take it once
            raise UsageError(f"{group}: got {twice[0]} twice, expected each name once.")


def _not_a_name(group: str, value: object) -> UsageError:
    there = ", ".join(options(group))
    return UsageError(f"{group}: is {value!r}, expected a name.\n  There are: {there}.")


def _check_sweeps_have_values(arguments: Sequence[str]) -> None:
    for o in parsed(arguments):
        key, value = o.key_or_group, o.value()
        names = options(key, config_folders(arguments))
        if isinstance(value, Glob):
            tried: Iterable[object] = value.filter([*names])
        elif o.is_discrete_sweep():
            tried = o.sweep_iterator()
        else:
            continue
        if not any(True for _ in tried):  # Hydra would end at once, as if all were done
            there = f"There are: {', '.join(names)}."
            advice = there if names else f"Give them as {key}=ONE,ANOTHER."
            raise UsageError(
                f"{o.input_line}: matches nothing, expected at least one value to try.\n  {advice}"
            )


def check_package(verb: str, base: str, arguments: Sequence[str]) -> None:
    """Raise UsageError if there is no such part of the configuration as is to be printed."""
    for argument in arguments:
        flag, _, package = argument.partition("=")
        if flag == "--package" and "--cfg=job" in arguments:
            keys = known_keys(verb, base, arguments)
            if package not in keys:
                raise UsageError(f"{flag}: {package} is not a key.\n  {near(package, keys)}")


def check_added_keys(verb: str, arguments: Sequence[str], config: DictConfig) -> None:
    """Raise UsageError if an added key is read neither by the verb nor, as ${KEY}, by another.

    A group of the user's own adds no key of its name if its files set keys at the root.
    """
    keys, groups = own_of(verb)
    known = {root_of(name) for name in (*keys, *groups, "hydra")}
    text = OmegaConf.to_yaml(config)
    for argument in arguments:
        key = key_of(argument)
        root = root_of(key)
        is_new = argument[:1] == "+" and root not in known and root in config
        if is_new and f"${{{root}" not in text:
            is_group = any((folder / key).is_dir() for folder in config_folders(arguments))
            advice = _ADVICE_OF_FILES if is_group else near(key, known_keys(verb, verb, arguments))
            raise UsageError(
                f"+{key}: nothing reads it, expected a key or group of `seqnets {verb}`.\n"
                f"  {advice}"
            )


def check_keys_of_files(verb: str, arguments: Sequence[str], config: DictConfig) -> None:
    """Raise UsageError if a file of the user's sets a key that nothing reads."""
    _check_options_have_their_place(arguments, config)
    keys, groups = own_of(verb)
    added = [argument for argument in arguments if argument[:1] == "+"]  # checked on their own
    known = {root_of(key_of(name)) for name in (*keys, *groups, *added)}
    text = OmegaConf.to_yaml(config)
    for key in map(str, config):
        misplaced = key in _ROOTED and OmegaConf.is_dict(config[key])
        referred_to = re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text)
        if referred_to or (key in known and not misplaced):
            continue
        if misplaced:
            set_there = ", ".join(map(str, config[key]))
            raise UsageError(
                f"{key}: its file sets {key}.{set_there}, which nothing reads, expected "
                f"{set_there}.\n  {_ADVICE_OF_FILES}"
            )
        raise UsageError(
            f"{key}: is set by a file, and nothing reads it, expected a key or group of "
            f"`seqnets {verb}`.\n  {near(key, known_keys(verb, verb, arguments))}"
        )


def _check_options_have_their_place(arguments: Sequence[str], config: DictConfig) -> None:
    """Raise UsageError for a file of model/option that does not say where the option stands."""
    found: Any = config.get("model")
    found = found.get("option") if OmegaConf.is_dict(found) else None
    if not OmegaConf.is_dict(found):
        return
    for folder in config_folders(arguments):
        for path in sorted((folder / "model" / "option").glob("*.yaml")):
            its: Any = OmegaConf.load(path)
            is_lost = not _PACKAGED.match(path.read_text(encoding="utf-8"))
            if is_lost and its.get("_target_") == found.get("_target_"):
                place = f"model.cell_options.{path.stem}"
                raise UsageError(
                    f"model/option={path.stem}: {path} sets model.option, which nothing reads, "
                    f"expected {place}.\n  Begin the file with the line `# @package {place}`."
                )
