"""``seqnets generate``: a language model writes, token by token."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from seqnets.cli.options import Config, check_seed
from seqnets.cli.trained import find_checkpoint, load_module
from seqnets.datasets import read_vocabulary
from seqnets.errors import CheckpointError
from seqnets.insight.visible import visible
from seqnets.training import LanguageModelling
from seqnets.training.generate import generate, generate_several

_OF_ALL = ("prompt", "length", "temperature", "top_k", "top_p", "stop", "seed")
"""The options of a text, one or several."""

_BETWEEN = "---"
"""The line between two texts."""


def run(options: Config, **_: Any) -> None:
    """Print the prompt and its continuation, each piece as soon as it is sampled; or several.

    Raises:
        SeqnetsError: The checkpoint is missing, damaged or not a language model's, or an option or
            the prompt is invalid.
    """
    check_seed(options["seed"])
    path = find_checkpoint(options["checkpoint"])
    module = load_module(path, options["allow"])
    if not isinstance(module.objective, LanguageModelling):
        raise CheckpointError(
            f"Checkpoint {path}: holds a {module.card['config']['model']['_target_']}, expected a "
            f"language model.\n  Only such a model can write."
        )
    vocabulary = read_vocabulary(module.card["data"])
    how = {key: options[key] for key in _OF_ALL}
    model, samples = module.model, options["samples"]
    if samples == 1:
        texts: list[Iterable[str]] = [generate(model, vocabulary, **how)]
    else:
        texts = [[text] for text in generate_several(model, vocabulary, samples, **how)]
    for number, pieces in enumerate(texts):
        sys.stdout.write(f"{_BETWEEN}\n" if number else "")
        _show(options["prompt"], pieces, stopped=bool(options["stop"]))


def _show(prompt: str, pieces: Iterable[str], stopped: bool) -> None:
    """Print a text as it comes; a line end at its end is the last one if it was stopped there."""
    seen = visible if sys.stdout.isatty() else str
    latest = prompt
    sys.stdout.write(seen(prompt))
    for latest in pieces:
        sys.stdout.write(seen(latest))
        sys.stdout.flush()
    print(end="" if stopped and latest.endswith("\n") else "\n")
