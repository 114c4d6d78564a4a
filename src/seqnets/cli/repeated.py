"""A command given again for a run that it has started, as ``resume=auto`` is made for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqnets.cli.arguments import config_flags, config_folders
from seqnets.cli.keys import groups_of
from seqnets.cli.listing import configs

_EACH_TIMES_OWN = ("allow", "output", "resume")
"""Keys that a checkpoint does not determine."""


def without_settled(verb: str, arguments: Sequence[str], saved: dict[str, Any]) -> list[str]:
    """The arguments without the choices that a checkpoint has settled, if they are the same.

    They are if the command composes the checkpoint's configuration, but for single keys that it
    sets. Otherwise all arguments stay, and Hydra refuses the choices.

    Args:
        verb: The verb.
        arguments: The command line, without the verb.
        saved: The checkpoint's configuration.
    """
    folders = config_folders(arguments)
    groups = groups_of(verb, [configs(), *folders])
    settled = [a for a in arguments if _key(a) in groups or a[0] in "+~"]
    if not settled:
        return list(arguments)
    flags = config_flags(arguments)
    overrides = [
        a for a in arguments if a not in flags and a[0] != "-" and not _key(a).startswith("hydra")
    ]
    composed = _composed(verb, overrides, folders)
    theirs: Any = OmegaConf.to_container(OmegaConf.create(saved), resolve=True)
    for key in (*_EACH_TIMES_OWN, *(key for key in map(_key, overrides) if key not in groups)):
        _remove(composed, key)
        _remove(theirs, key)
    if composed != theirs:
        return list(arguments)
    kept = [a for a in arguments if _key(a) not in groups and a[0] != "~"]
    return ["++" + a.lstrip("+") if a[0] == "+" else a for a in kept]


def _key(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0].partition("@")[0]


def _composed(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> Any:
    """The configuration of a command in plain containers; None if it cannot be composed."""
    places = ",".join(f"'file://{folder.absolute()}'" for folder in folders)
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(configs()), version_base="1.3"):
            config = hydra.compose(verb, overrides=[*overrides, f"hydra.searchpath=[{places}]"])
        return OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException):
        return None


def _remove(node: Any, key: str) -> None:
    """Remove a dotted key from nested mappings, if it is there."""
    *outer, last = key.split(".")
    for name in outer:
        node = node.get(name) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(last, None)
