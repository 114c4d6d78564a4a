"""``seqnets VERB --help``: the verb's own keys as their file explains them, then its groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seqnets.cli.listing import configs, options

_KEYS = "Keys, and their values where nothing is said (???: there is none):"
_GROUPS = "Groups, set by GROUP=NAME (`seqnets list` says what each is):"


def help_of(verb: str, folders: Sequence[Path]) -> str:
    """Say what can be set for a verb.

    Args:
        verb: One that has a configuration.
        folders: Of the user's own configurations.
    """
    path = configs() / f"{verb}.yaml"
    told = OmegaConf.load(path).hydra.help
    keys = path.read_text(encoding="utf-8").split("\n\n")[1:-1]  # between the defaults and Hydra's
    blocks = [told.header, f"{_KEYS}\n\n" + textwrap.indent("\n\n".join(keys), "  ")]
    if groups := "\n".join(_groups(verb, [configs(), *folders])):
        more = f"`seqnets {verb} --cfg job` prints what they set, for KEY=VALUE to change."
        blocks.append(f"{_GROUPS}\n\n{groups}\n\n{more}")
    return "\n\n".join([*blocks, *filter(None, [told.footer])]) + "\n"


def own_of(verb: str) -> tuple[set[str], set[str]]:
    """Return the keys and the groups that a verb's configuration starts from."""
    own: Any = OmegaConf.to_container(OmegaConf.load(configs() / f"{verb}.yaml"))
    groups = {group for entry in own["defaults"] if isinstance(entry, dict) for group in entry}
    return own.keys() - {"defaults", "hydra"}, {g for g in groups if "hydra/" not in g}


def groups_of(verb: str, folders: Sequence[Path]) -> set[str]:
    """Return the groups that a verb starts from, and those within them."""
    _, chosen = own_of(verb)
    there = {str(p.parent.relative_to(f)) for f in folders for p in f.rglob("*.yaml")}
    return {g for g in there if any(g == one or g.startswith(f"{one}/") for one in chosen)}


def _groups(verb: str, folders: Sequence[Path]) -> Iterator[str]:
    """Each group of a verb with its names."""
    width = shutil.get_terminal_size().columns
    for group in sorted(groups_of(verb, folders)):
        names = ", ".join(sorted(options(group, folders)))
        yield textwrap.fill(
            f"{group}: {names}", width, initial_indent="  ", subsequent_indent="    "
        )
