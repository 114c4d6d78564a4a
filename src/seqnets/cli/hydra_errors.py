"""Hydra's errors in the words of seqnets, with names close to a mistyped one."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from hydra.errors import MissingConfigException, OverrideParseException

from seqnets.cli.arguments import config_folders, is_read, key_of, parsed, root_of
from seqnets.cli.keys import LIST_GROUPS, choosers_of, known_keys
from seqnets.cli.listing import configs, option_files, options
from seqnets.cli.meant import OF_PATHS, option_meant, path_meant, trained_at, word_meant
from seqnets.cli.names import UsageError, near
from seqnets.quoting import override, override_list, shell

# How Hydra says that a key got several values, does not exist, or that a key or a group is added
# although it exists.
_SEVERAL = r"(Ambiguous) value for argument '(.*)'|Sweep .* '(.*)' r"
_UNKNOWN = r"Could not (override|delete)(?: from config.)? '([^'=]+)(?:=[^']*)?'"
_PRESENT = r"Could not append to config. An item is already at '([^']+)'"
_CHOSEN = r"Multiple values for (\S+)\. |force-add of config groups is not supported: '\+\+([^=]+)="

_CHOSEN_BY = {"dataset": ("model", "objective"), "experiment": ("dataset", "model", "objective")}
"""What an option of a group chooses beside itself."""


def explained(verb: str, base: str, arguments: Sequence[str], error: Exception) -> UsageError:
    """The error to raise in place of one of Hydra's.

    Args:
        verb: The verb that was called.
        base: The configuration that was overridden: the verb's, or a checkpoint's.
        arguments: The command line.
        error: An error of Hydra or OmegaConf.
    """
    text = str(error)
    if isinstance(error, MissingConfigException):
        group, option = _chosen(arguments, error.missing_cfg_file or "")
        # Hydra does not say what there is if the name was one of a list
        known = error.options or list(options(group, config_folders(arguments)))
        if known:
            return _unknown_option(verb, arguments, group, option, known)
    if several := re.match(_SEVERAL, text):
        return _several_values(verb, several[2] or several[3], ambiguous=bool(several[1]))
    if unknown := re.search(_UNKNOWN, text):
        key = unknown[2].split("@")[0]
        return _unknown_key(verb, base, arguments, key, to_set=unknown[1] == "override")
    if isinstance(error, OverrideParseException):
        return _unreadable(verb, arguments, error.override)
    if "BasicSweeper does not support" in text:
        return UsageError(
            f"seqnets {verb} -m: got an interval, expected values to be tried one by one.\n"
            "  Give them as KEY=ONE,ANOTHER; hydra/sweeper=optuna searches in an interval."
        )
    if present := re.search(_PRESENT, text):
        if (varied := _varied(arguments, present[1])) is not None:
            return _key_of_some_jobs(arguments, present[1], varied)
        return UsageError(
            f"+{present[1]}: is a key already, expected it without the +.\n"
            f"  Give it as {present[1]}=VALUE."
        )
    chosen, added = re.search(_CHOSEN, text), (a for a in arguments if a[:1] == "+")
    if given := next((a for a in added if chosen and key_of(a) in chosen.groups()), None):
        return UsageError(
            f"{given}: adds a group that is there already, expected it without the +.\n"
            f"  Give it as {shell(given.lstrip('+'))}."
        )
    causes = [str(e).splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e)]
    return UsageError(f"seqnets {verb}: " + "\n  ".join(dict.fromkeys(causes)))


def _chosen(arguments: Sequence[str], missing: str) -> tuple[str, str]:
    """The group and the option that are missing: as they were typed, or from a file of one's own.

    An option that was typed may have slashes, since it may be the path of a file.
    """
    for argument in arguments:
        option = missing.removeprefix(f"{(group := key_of(argument))}/")
        if option != missing and option in argument.partition("=")[2]:
            return group, option
    group, _, option = missing.rpartition("/")
    return group, option


def _unreadable(verb: str, arguments: Sequence[str], argument: str) -> UsageError:
    """The error for an override that Hydra's grammar does not allow."""
    key, equals, value = argument.partition("=")
    proposed = override(key, value)
    if not equals:
        advice = word_meant(verb, arguments, key)
    elif re.search(r"(^|,)\s*(,|$)", value):
        advice = f"Several values are given as {key}=ONE,ANOTHER, none of them empty."
    elif listed := re.fullmatch(r"\[([^\[\]]+)\]", value):
        entries = (entry.strip() for entry in listed[1].split(","))
        advice = f"A text with special characters is quoted: {shell(override_list(key, entries))}"
    elif is_read(proposed):
        advice = f"A value with special characters is quoted twice: {shell(proposed)}"
    else:
        advice = f"{key!r} is no name of a key: `seqnets {verb} --cfg job` prints them all."
    said = f"seqnets {verb}: {argument or repr(argument)} cannot be read, expected KEY=VALUE."
    return UsageError("\n  ".join(filter(None, [said, advice])))


def _unknown_option(
    verb: str, arguments: Sequence[str], group: str, option: str, known: Sequence[str]
) -> UsageError:
    if (group, option) == ("hydra/sweeper", "optuna"):
        return UsageError(
            "hydra/sweeper: optuna is not installed, expected the library of that name.\n"
            "  Install it: pip install 'seqnets[optuna]'"
        )
    advice = near(option, known)
    is_name = advice.startswith("Did") and not re.search("[./]", option)
    meant = "" if is_name else path_meant(verb, arguments, option)
    if meant and (group == "dataset" or trained_at(option)):
        advice = meant
    elif option in ("none", "null"):  # of loggers there is one of that name
        advice = f"None at all is {shell(f'{group}=[]')}." if group in LIST_GROUPS else advice
    elif not advice.startswith("Did"):
        advice = option_meant(verb, arguments, option) or advice
    return UsageError(
        f"{group}: there is no option {option!r}.\n  {advice}\n"
        "  `seqnets list` says what they are; --config-dir FOLDER adds your own, and "
        "'hydra.searchpath=[pkg://PACKAGE.conf]' an installed package's."
    )


def _unknown_key(
    verb: str, base: str, arguments: Sequence[str], key: str, to_set: bool
) -> UsageError:
    """The error for a key or group that does not exist, and was to be set or removed."""
    given = (argument.partition("=") for argument in arguments)
    path = next((value for name, _, value in given if key_of(name) == key), "")
    is_option = path in options(key, config_folders(arguments))
    is_value = path == "last" and "." in key
    meant = "" if is_option or is_value else path_meant(verb, arguments, path)
    if meant and key in OF_PATHS:
        what = "a trained model" if trained_at(path) else "data"
        return UsageError(f"{key}: is not a key of `seqnets {verb}` for {what}.\n  {meant}")
    if base != verb and (configs() / key).is_dir():
        return _of_checkpoint(verb, base, arguments, key)
    if (choosers := choosers_of(key)) and to_set:
        return _without_choice(key, choosers)
    if choosers:
        removed = f"~{key}={path}" if path else f"~{key}"
        return UsageError(f"{removed}: removes what nothing chose, expected it to be left out.")
    return _missing_key(verb, base, arguments, key, to_set, meant)


def _of_checkpoint(verb: str, base: str, arguments: Sequence[str], key: str) -> UsageError:
    """The error for a group of which a checkpoint has an option already."""
    dotted = f"{key.replace('/', '.')}."
    if any(name.startswith(dotted) for name in known_keys(verb, base, arguments)):
        advice = f"Single keys can be changed: {dotted}KEY=VALUE."
    else:
        advice = "It stays as the run has it; a new run can take another."
    return UsageError(f"{key}: is determined by the checkpoint, expected no other.\n  {advice}")


def _without_choice(key: str, choosers: Sequence[str]) -> UsageError:
    """The error for a group that belongs to some options of the one around it, but not this one."""
    outer, _, inner = key.rpartition("/")
    return UsageError(
        f"{key}: this {outer} has no {inner}, expected one that has: {', '.join(choosers)}.\n"
        f"  {'' if outer == 'dataset' else f'The dataset picks a {outer}; '}{outer}=NAME takes "
        "another."
    )


def _missing_key(
    verb: str, base: str, arguments: Sequence[str], key: str, to_set: bool, meant: str
) -> UsageError:
    """The error for a key that is not there; ``meant`` is what its value may have been."""
    keys = known_keys(verb, base, arguments)
    advice = near(key, keys)
    if to_set:
        alike = advice.startswith(f"Did you mean {root_of(key)}.")
        if not alike and (group := _varied(arguments, key)) is not None:
            return _key_of_some_jobs(arguments, key, group)
        if key in keys:
            return UsageError(
                f"{key}: has no such keys yet, expected them to be added one by one.\n"
                f"  +{key}.NAME=VALUE adds one."
            )
        if option := _option_with(arguments, key, keys):
            return UsageError(
                f"{key}: belongs to an option that is not chosen, expected it too.\n"
                f"  {shell(option)} chooses it{'' if base == verb else ' in a new run'}."
            )
        if any(keys.get(place, "") in (None, {}) for place in _around(key)):
            return UsageError(
                f"{key}: is not there yet, expected it to be added.\n  +{key}=VALUE adds it."
            )
    absent = next((name for name in _around(key) if name not in keys), key)
    outer, _, inner = absent.rpartition(".")
    if not advice.startswith("Did"):
        owners = _owners(arguments, outer, inner) if base == verb and outer else []
        lacking = "it" if absent == key else absent
        others = f"Others have {lacking}, such as {outer}={', '.join(owners)}." if owners else meant
        advice = others or advice
    how_to_add = ""
    if to_set and isinstance(keys.get(outer), dict):
        how_to_add = f"  An option that is not listed is added by +{key}=VALUE.\n"
    return UsageError(
        f"{key}: is not a key or group of `seqnets {verb}`.\n  {advice}\n{how_to_add}"
        f"  `seqnets {verb} --cfg job` prints all keys, `seqnets {verb} --help` all groups."
    )


def _varied(arguments: Sequence[str], key: str) -> str | None:
    """The group that a sweep varies, by whose option it depends whether there is such a key."""
    varied = {o.key_or_group for o in parsed(arguments) if o.is_sweep_override()}
    for group in sorted(varied, key=len, reverse=True):
        outer = (group.replace("/", "."), *_CHOSEN_BY.get(group, ()))
        if (configs() / group).is_dir() and key.startswith(tuple(f"{name}." for name in outer)):
            return group
    return None


def _key_of_some_jobs(arguments: Sequence[str], key: str, group: str) -> UsageError:
    """The error for a key that only jobs with some options of a group may have."""
    given = next(argument for argument in arguments if key_of(argument) == key)
    added = f"++{given.lstrip('+')}"
    return UsageError(
        f"{given}: depends on what the sweep varies, {group}, expected ++ before it.\n"
        f"  A key is looked for before a job's {group} is known: {shell(added)}"
    )


def _owners(arguments: Sequence[str], group: str, key: str) -> list[str]:
    """The options of a group whose own files have a key; others may inherit it from them."""
    files = option_files(group, config_folders(arguments))
    has = re.compile(rf"^{re.escape(key)}:", re.MULTILINE)
    return [path.stem for path in files if has.search(path.read_text(encoding="utf-8"))]


def _option_with(arguments: Sequence[str], key: str, keys: Container[str]) -> str:
    """The option, of several that a group takes, that would bring a key; empty if there is none."""
    for group in LIST_GROUPS:
        for path in option_files(group, config_folders(arguments)):
            first, _, _ = path.read_text(encoding="utf-8").partition("\n")
            package = first.removeprefix("# @package ")
            place, _, _ = package.rpartition(".")
            if key.startswith(f"{package}.") and package not in keys and place in keys:
                return f"{group}=[{path.stem}]"
    return ""


def _around(key: str) -> list[str]:
    """The keys that a key is within, outermost first."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _several_values(verb: str, argument: str, ambiguous: bool) -> UsageError:
    """The error for several values without -m.

    Args:
        verb: The verb that was called.
        argument: The override.
        ambiguous: Whether the values could also be meant as a list, or as a text with commas.
    """
    key, _, values = argument.partition("=")
    lines = [
        f"{key}: got several, {values}, expected one.",
        f"A run with each: seqnets {verb} -m {shell(argument)}",
    ]
    is_value = ambiguous and not (configs() / key).is_dir()
    if is_value or key in LIST_GROUPS:
        lines.append(f"A list of them: {shell(f'{key}=[{values}]')}")
    if is_value:
        lines.append(f"A text with a comma: {shell(override(key, values))}")
    return UsageError("\n  ".join(lines))
