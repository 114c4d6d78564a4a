"""A verb's options: its composed configuration as plain values, and checks that verbs share."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from seqnets.checks import is_whole
from seqnets.cli.names import UsageError, near
from seqnets.datasets.parts import PARTS
from seqnets.errors import ConfigError

Config = dict[str, Any]


def plain(config: DictConfig) -> Config:
    """Resolve a composed configuration to plain containers.

    Raises:
        UsageError: A required value is missing, or ``allow`` is not a list of modules that exist.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        newest = ", or checkpoint=last for the newest run" if missing[0] == "checkpoint" else ""
        raise UsageError(
            f"{missing[0]}: is not given and has no default.\n"
            f"  Give it as {missing[0]}=VALUE{newest}."
        )
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    if not isinstance(resolved["allow"], list):
        raise UsageError(f"allow: is {resolved['allow']!r}, expected a list: 'allow=[MODULE]'.")
    for name in resolved["allow"]:
        if not isinstance(name, str) or not _exists(name.partition(".")[0]):
            raise UsageError(
                f"allow: {name!r} is in no module that can be imported.\n"
                "  Modules are named with dots and must be on Python's path (PYTHONPATH)."
            )
    return resolved


def _exists(module: str) -> bool:
    """Whether there is a module of this name; it is not imported."""
    try:
        return module in sys.modules or find_spec(module) is not None
    except ValueError:  # an empty name
        return False


def check_seed(seed: Any) -> None:
    """Raise UsageError unless this is a valid seed of random numbers."""
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise UsageError(f"seed: is {seed!r}, expected a whole number, 0 to {2**32 - 1}.")


def check_part(part: Any) -> None:
    """Raise UsageError unless this is a part of a dataset."""
    if part not in PARTS:
        raise UsageError(f"part: is {part!r}.\n  {near(str(part), PARTS)}")


def check_filled(kind: str = "path", /, **paths: Any) -> None:
    """Raise UsageError for an empty path, which would mean the current folder.

    Args:
        kind: What is expected: "path" or "file".
        paths: The paths by the keys of their options.
    """
    for key, path in paths.items():
        if path == "":
            way = "" if kind == "file" else f"\n  {key}=. is the current folder."
            raise UsageError(f"{key}: is empty, expected a {kind}.{way}")


def check_truths(**options: Any) -> None:
    """Raise UsageError unless each option is a boolean: ``no`` is text, and would count as true."""
    for key, value in options.items():
        if not isinstance(value, bool):
            raise UsageError(f"{key}: is {value!r}, expected true or false.")


def check_new(key: str, path: Path | str, overwrite: bool) -> None:
    """Raise ConfigError for a file that exists and is not to be overwritten."""
    check_truths(overwrite=overwrite)
    if Path(path).expanduser().exists() and not overwrite:
        raise ConfigError(
            f"{key}: {path} exists already, expected a new file.\n"
            f"  Name another with {key}=FILE, or set overwrite=true."
        )
