"""``seqnets generate``: a language model writes, token by token."""

from __future__ import annotations

import sys
from typing import Any

from seqnets.cli.options import Config, check_seed
from seqnets.cli.trained import find_checkpoint, load_module
from seqnets.datasets import read_vocabulary
from seqnets.errors import CheckpointError
from seqnets.insight.visible import visible
from seqnets.training import LanguageModelling
from seqnets.training.generate import generate


def run(options: Config, **_: Any) -> None:
    """Print the prompt and its continuation, each piece as soon as it is sampled.

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
    pieces = generate(
        module.model.eval(),
        vocabulary,
        prompt=options["prompt"],
        length=options["length"],
        temperature=options["temperature"],
        top_k=options["top_k"],
        seed=options["seed"],
    )
    seen = visible if sys.stdout.isatty() else str
    sys.stdout.write(seen(options["prompt"]))
    for piece in pieces:
        sys.stdout.write(seen(piece))
        sys.stdout.flush()
    print()
