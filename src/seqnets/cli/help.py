"""``seqnets VERB --help``: the verb's keys as its file explains them, then its groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from seqnets.cli.keys import groups_of
from seqnets.cli.lines import hanging
from seqnets.cli.listing import configs, options

_KEYS = "Keys and their defaults (??? marks a key that has to be given):"
_GROUPS = "Groups to choose from by GROUP=NAME (`seqnets list` describes each choice):"


def help_of(verb: str, folders: Sequence[Path]) -> str:
    """The help of a verb: what it does, and what can be set.

    Args:
        verb: A verb that has a configuration.
        folders: Folders of the user's own configurations.
    """
    path = configs() / f"{verb}.yaml"
    told = OmegaConf.load(path).hydra.help
    keys = path.read_text(encoding="utf-8").split("\n\n")[1:-1]  # between the defaults and Hydra's
    lines = textwrap.indent("\n\n".join(keys), "  ").splitlines()
    explained = "\n".join(hanging(line, line.find("#") + 2) if line else line for line in lines)
    blocks = [hanging(told.header, 2), f"{hanging(_KEYS, 0)}\n\n{explained}"]
    if groups := "\n".join(_groups(verb, folders)):
        more = f"`seqnets {verb} --cfg job` prints the keys that these set; KEY=VALUE changes one."
        blocks += [hanging(_GROUPS, 0), groups, hanging(more, 0)]
    if told.footer:
        blocks.append(hanging(told.footer, 0))
    return "\n\n".join(blocks) + "\n"


def _groups(verb: str, folders: Sequence[Path]) -> Iterator[str]:
    """Yield a paragraph for each group of a verb, with its options."""
    width = shutil.get_terminal_size().columns
    for group in sorted(groups_of(verb, folders)):
        names = ", ".join(sorted(options(group, folders)))
        yield textwrap.fill(
            f"{group}: {names}", width, initial_indent="  ", subsequent_indent="    "
        )
