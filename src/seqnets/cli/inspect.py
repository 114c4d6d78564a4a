"""``seqnets inspect``: show a dataset as a model would see it, or the inside of a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from seqnets.cli.arguments import key_of
from seqnets.cli.inspect_data import OWN, inspect_data
from seqnets.cli.inspect_model import inspect_model
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config
from seqnets.cli.trained import with_its_task

_OF_DATA, _OF_MODEL = (*OWN, "seed"), ("part", "row", "at", "to", "overwrite")
"""Keys that act only where a dataset is shown, and only where a model is drawn."""


def from_checkpoint(given: Mapping[str, Any], own: Config) -> tuple[Config, Config] | None:
    """The verb's configuration with the checkpoint's dataset and objective, and no other groups."""
    found = with_its_task(given, own)
    if found is None:
        return None
    config, settled = found
    groups = ("dataset", "model", "objective")
    defaults = [entry for entry in own["defaults"] if not set(groups) & set(entry)]
    return {**config, "defaults": defaults}, settled


def run(options: Config, **_: Any) -> None:
    """Print what a dataset holds, or, with a checkpoint, draw the inside of its model.

    Raises:
        SeqnetsError: An option, the data or the checkpoint are faulty.
    """
    _check_mode(options)
    if options["checkpoint"] is None:
        inspect_data(options)
    else:
        inspect_model(options)


def _check_mode(options: Config) -> None:
    """Raise UsageError for a key that would not act, since it belongs to the other mode."""
    for key in map(key_of, sys.argv[2:]):
        if options["checkpoint"] is None and key in _OF_MODEL:
            raise UsageError(
                f"{key}: is about a trained model, expected checkpoint=PATH beside it.\n"
                f"  Of a dataset, what is shown depends on {', '.join(_OF_DATA)}."
            )
        if options["checkpoint"] is not None and key in _OF_DATA:
            raise UsageError(
                f"{key}: is about a dataset, expected no checkpoint beside it.\n"
                f"  Of a model, what is drawn depends on {', '.join(_OF_MODEL)}."
            )
