"""The inputs of single steps as text, for pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from seqnets.datasets.sequences.step_inputs import Words, read_inputs
from seqnets.datasets.text.codecs import read_codec
from seqnets.datasets.text.pieces import read_vocabulary
from seqnets.typing import Known


def step_texts(x: Tensor, known: Known) -> list[str] | None:
    """The text of each token of a sequence; None for features.

    Args:
        x: Tokens, (T,) int64, with their spelling, (T, 1 + bytes), or features.
        known: What the dataset says of itself.
    """
    if x.is_floating_point():
        return None
    if isinstance(inputs := read_inputs(known), Words):
        return inputs.decode(x.cpu().numpy())
    numbers = x.tolist()
    if known.get("source") is not None:
        return read_codec(known["source"]).pieces(numbers)
    if known["unit"] == "bpe":
        vocabulary = read_vocabulary(known)
        return [vocabulary.piece(number) for number in numbers]
    tokens = known["vocabulary"]
    return [str(number) if tokens is None else tokens[number] for number in numbers]


def feature_names(known: Known) -> Sequence[str] | None:
    """The names of a dataset's features; None if they have none."""
    if known.get("columns") is not None:  # of a series
        return known["columns"]
    if known.get("numbers") is not None:
        return known["numbers"]["features"]
    named = known.get("facts", {}).get("features")
    return named if isinstance(named, list) else None
