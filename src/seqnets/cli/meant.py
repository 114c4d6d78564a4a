"""What a word or a path on the command line was meant for, if its key is missing or wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from seqnets.cli.arguments import config_folders, is_read, key_of, root_of
from seqnets.cli.keys import groups_of, own_of
from seqnets.cli.listing import options
from seqnets.cli.runs import newest_run
from seqnets.quoting import override, shell

# Keys that take, in some verb, the path of a checkpoint or of a run, and of data.
_OF_MODELS, _OF_DATA = ("checkpoint", "resume", "source"), ("input", "predictions")
OF_PATHS = (*_OF_MODELS, *_OF_DATA, "dataset")

WRITTEN = (".onnx", ".pt2", ".pt", ".pth", ".keras", ".msgpack")
"""Suffixes of what `seqnets export` and `seqnets convert` write, without what writes it."""


def word_meant(verb: str, arguments: Sequence[str], word: str) -> str:
    """What to write for a word without a key; empty if nobody knows."""
    left = _left(verb, arguments)
    if meant := option_meant(verb, arguments, word) or path_meant(verb, arguments, word):
        return meant
    if "target" in left and Path(word).suffix in WRITTEN:
        return f"Give it as {shell(override('target', word))}."
    known = word.startswith("+") or root_of(key_of(word)) in set.union(*own_of(verb))
    if known and is_read(f"{word}=1"):
        return f"{shell(f'{word}=VALUE')} gives a value."
    is_prompt = "prompt" in left and "checkpoint" not in left
    return f"Give it as {shell(f'prompt={word}')}." if is_prompt else ""


def option_meant(verb: str, arguments: Sequence[str], name: str) -> str:
    """What to write for an option whose group is missing or wrong; empty if there is none."""
    keys, _ = own_of(verb)
    folders, choices = config_folders(arguments), []
    for group in sorted(groups_of(verb, folders)):
        alike = [known for known in options(group, folders) if known.casefold() == name.casefold()]
        several = group == "model/cell" and "cells" in keys
        choices += [f"'cells=[{known}]'" if several else f"{group}={known}" for known in alike]
    return f"Did you mean {' or '.join(choices)}?" if choices else ""


def path_meant(verb: str, arguments: Sequence[str], path: str) -> str:
    """What to write for a file, a folder or "last" that came by no key or by a wrong one.

    Empty if it is not there, or if the verb has no key for such.
    """
    if path != "last" and not os.path.exists(path):
        return ""
    trained, left = trained_at(path), _left(verb, arguments)
    if not trained and "dataset" in own_of(verb)[1]:
        given = shell(override("dataset.path", path))
        return f"A dataset reads it: dataset=NAME {given}. `seqnets list datasets` has names."
    fitting = _OF_MODELS if trained else (*_OF_DATA, *_OF_MODELS)
    key = next((key for key in fitting if key in left), None)
    if key is None:
        return ""
    lead = "Give it as" if trained in ("", path) else "It holds runs, of which the newest is"
    more = " `seqnets predict` makes such a file of new data." if key == "predictions" else ""
    return f"{lead} {shell(override(key, trained or path))}.{more}"


def trained_at(path: str) -> str:
    """The trained model that a path stands for, of a folder of runs the newest; empty if none."""
    place = Path(path)
    inside = chain(place.glob("*.ckpt"), place.glob("*/*.ckpt"))
    if path == "last" or place.suffix == ".ckpt" or any(map(Path.is_file, inside)):
        return path
    return str(newest_run(place) or "")


def _left(verb: str, arguments: Sequence[str]) -> set[str]:
    """The keys of a verb that its command line does not give."""
    return own_of(verb)[0] - {key_of(argument) for argument in arguments if "=" in argument}
