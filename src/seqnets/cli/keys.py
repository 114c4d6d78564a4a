"""The keys and groups of a verb's configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from seqnets.cli.arguments import config_folders, parsed, search_path
from seqnets.cli.listing import configs

LIST_GROUPS = ("model/option", "dataset/augment", "callbacks", "logger", "experiment")
"""Config groups that accept several options at once: GROUP=[ONE,ANOTHER]."""


def own_of(verb: str) -> tuple[set[str], set[str]]:
    """The keys and the groups that a verb's configuration file names."""
    own: Any = OmegaConf.to_container(OmegaConf.load(configs() / f"{verb}.yaml"))
    groups = {group for entry in own["defaults"] if isinstance(entry, dict) for group in entry}
    return own.keys() - {"defaults", "hydra"}, {g for g in groups if "hydra/" not in g}


def groups_of(verb: str, own: Sequence[Path]) -> set[str]:
    """The groups that a verb's configuration file names, and those within them.

    Args:
        verb: The verb.
        own: Folders of the user's own configurations, which may have more of them.
    """
    _, named = own_of(verb)
    folders = (configs(), *own)
    found = {str(path.parent.relative_to(f)) for f in folders for path in f.rglob("*.yaml")}
    return {group for group in found if any(f"{group}/".startswith(f"{one}/") for one in named)}


def choosers_of(group: str) -> list[str]:
    """For a group within another one, such as model/head: the models that choose from it."""
    outer, _, inner = group.rpartition("/")
    files = sorted((configs() / outer).glob("*.yaml")) if outer else []
    choice = re.compile(rf"^  - {re.escape(inner)}:", re.MULTILINE)
    return [path.stem for path in files if choice.search(path.read_text(encoding="utf-8"))]


def known_keys(verb: str, base: str, arguments: Sequence[str]) -> dict[str, Any]:
    """All keys and groups that overrides could set, as far as the configuration can be composed.

    The values are theirs, or the names of groups that are not in the configuration.

    Args:
        verb: The verb, whose groups come first.
        base: The configuration that is composed: the verb's, or a checkpoint's.
        arguments: The command line, whose choices from groups decide which keys there are.
    """
    folders = config_folders(arguments)
    groups = groups_of(verb, folders)
    chosen = [
        str(o.input_line)
        for o in parsed(arguments)
        if o.key_or_group in groups and isinstance(o.value(), (str, list))
    ]
    try:
        config = composed(base, chosen, folders)
    except HydraException:  # a choice may be what is wrong
        config = composed(base, [], folders)
    values = _flat(OmegaConf.to_container(config, resolve=False))
    return {**{group: group for group in groups}, **dict(values)}


def composed(base: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    """Compose a configuration beside the one that Hydra runs.

    Args:
        base: The configuration to override: a verb's, or a checkpoint's.
        overrides: The overrides.
        folders: Folders of the user's own configurations.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(configs()), version_base="1.3"):
        return hydra.compose(base, overrides=[*overrides, search_path(folders)])


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted names of all keys in nested mappings, with their values."""
    for name, child in node.items() if isinstance(node, dict) else ():
        if name not in ("_target_", "_partial_"):
            yield f"{prefix}{name}", child
            yield from _flat(child, f"{prefix}{name}.")
