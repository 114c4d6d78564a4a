"""What a command line says: its overrides, and where the user's own configurations are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from seqnets.cli.names import UsageError
from seqnets.quoting import override, override_list, value_of

_SEARCHED = "hydra.searchpath"
"""The key under which Hydra takes more folders of configurations."""

_LITERAL = re.compile(r"""(?!-)[+\w@./:-]+=(?!['"\[{$]|\w+\()[^,]+""", re.ASCII)
"""An override whose value may be meant literally if Hydra's grammar cannot read it."""

_LIST = re.compile(r"""(?!-)([+\w@./:-]+)=\[((?:[^\[\]{}'"]|\[[^\[\]{}'"]*\])+)\]""", re.ASCII)
"""An override by a list, whose entries may be meant literally: ``[ä, b [°C]]``."""

_ENTRY = re.compile(r"(?:\\.|\[.*?\]|[^,])+", re.DOTALL)
"""An entry of a list: commas after a backslash or in brackets belong to it."""

_ESCAPED = re.compile(r"\\([\\():=,\s])")
"""A character that Hydra's grammar reads without the backslash before it."""


def parsed(arguments: Sequence[str]) -> list[Override]:
    """The overrides of a command line, by Hydra's grammar.

    Raises:
        OverrideParseException: The grammar does not allow one of them.
    """
    given = [argument for argument in arguments if "=" in argument and argument[0] != "-"]
    return OverridesParser.create().parse_overrides(given)


def key_of(argument: str) -> str:
    """The key or group that an override sets, adds or removes."""
    return argument.lstrip("+~").partition("=")[0].partition("@")[0]


def root_of(key: str) -> str:
    """The first part of a key's or group's name."""
    return re.split("[./]", key)[0]


def quoted(argument: str) -> str:
    """The argument, quoted for Hydra if its value is meant literally.

    That is a prompt or a stop text, and what Hydra's grammar cannot read: a value such as
    ``Straße.csv``, alone or in a list. What is quoted already stays as it is, and so do mappings,
    calls and several values.
    """
    key, _, text = argument.partition("=")
    if key in ("prompt", "stop"):
        is_quoted = re.fullmatch(r"""(['"]).*\1""", text, re.DOTALL)
        return argument if is_quoted else override(key, text)
    if is_read(argument):
        return argument
    if listed := _LIST.fullmatch(argument):
        literal = f"{key}=[{_ENTRY.sub(_quoted_entry, listed[2])}]"
        return literal if is_read(literal) else argument
    return override(key, text) if _LITERAL.fullmatch(argument) else argument


def _quoted_entry(match: re.Match[str]) -> str:
    """An entry of a list, quoted if Hydra's grammar cannot read it."""
    entry = match[0].strip()
    if entry[:1] == "[" or is_read(f"e={entry}"):  # a list may be within the list
        return entry
    return value_of(_ESCAPED.sub(r"\1", entry))


def is_read(argument: str) -> bool:
    """Whether Hydra's grammar can read an override."""
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def swept_values(overrides: Sequence[str], arguments: Sequence[str]) -> dict[str, str]:
    """The values in which a job of a sweep may differ from the others, by key.

    Args:
        overrides: The job's overrides.
        arguments: The command line of the whole sweep.
    """
    several = {o.get_key_element() for o in parsed(arguments) if o.is_sweep_override()}
    fixed = {argument.partition("=")[0] for argument in arguments} - several
    pairs = (override.partition("=")[::2] for override in overrides)
    return {key: value for key, value in pairs if key not in fixed}


def config_flags(arguments: Sequence[str]) -> list[str]:
    """The ``--config-dir`` flag of a command line, with its value; empty without one."""
    for place, argument in enumerate(arguments):
        if argument in ("--config-dir", "-cd"):
            return list(arguments[place : place + 2])
        if argument.startswith("--config-dir="):
            return [argument]
    return []


def searching(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line that say where the user's own configurations are."""
    return [*config_flags(arguments), *(a for a in arguments if key_of(a) == _SEARCHED)]


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of the user's own configurations: --config-dir's and hydra.searchpath's."""
    own = [Path(flag.removeprefix("--config-dir=")) for flag in config_flags(arguments)[-1:]]
    return [*own, *(folder for folder in searched(arguments).values() if folder is not None)]


def searched(arguments: Sequence[str]) -> dict[str, Path | None]:
    """The folder of each entry of ``hydra.searchpath``; None where there is none."""
    entries: list[str] = []
    for argument in arguments:
        if key_of(argument) == _SEARCHED and "=" in argument and is_read(argument):
            value = OverridesParser.create().parse_override(argument).value()
            entries = [str(entry) for entry in value] if isinstance(value, list) else []
    return {entry: _folder_of(entry) for entry in entries}


def check_searched(arguments: Sequence[str]) -> None:
    """Raise UsageError unless ``hydra.searchpath``, if given, is a list of folders that exist."""
    given = [a for a in arguments if key_of(a) == _SEARCHED and "=" in a]
    found = searched(given)
    absent = [entry for entry, folder in found.items() if folder is None]
    if absent:
        raise UsageError(
            f"{_SEARCHED}: {', '.join(absent)} is not a folder of configs, expected one.\n"
            "  pkg://PACKAGE.conf is that of an installed package, others are named by their paths."
        )
    if given and not found:
        raise UsageError(
            f"{given[-1]}: expected a list, such as 'hydra.searchpath=[pkg://mycells.conf]'."
        )


def _folder_of(entry: str) -> Path | None:
    """The folder that an entry of ``hydra.searchpath`` names, by its path or as a package's."""
    scheme, _, place = entry.rpartition("://")
    if scheme != "pkg":
        return path if (path := Path(place)).is_dir() else None
    try:
        found = Path(str(files(place)))
    except (ImportError, TypeError, ValueError):
        return None
    return found if found.is_dir() else None


def search_path(folders: Sequence[Path]) -> str:
    """The override by which Hydra finds configurations in these folders too."""
    return override_list(_SEARCHED, (f"file://{folder.absolute()}" for folder in folders))
