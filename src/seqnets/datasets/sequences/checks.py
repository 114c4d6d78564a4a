"""Checks of sequences, before a model sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from seqnets.datasets.sequences.sequences import Sequences
from seqnets.errors import DataError, counted
from seqnets.typing import BLANK, IGNORE, Sizes


def check_sequences(who: str, sequences: Sequences, sizes: Sizes) -> None:
    """Check for data that would crash or mislead a model.

    Raises:
        DataError: A length, feature, token or label is out of range; says in which sequence.
    """
    x, y, lengths = sequences.x, sequences.y, sequences.lengths
    if int(lengths.min()) < 1 or int(lengths.sum()) != len(x):
        raise DataError(
            f"{who}: got lengths of at least {int(lengths.min())} that sum to "
            f"{int(lengths.sum()):,} for {len(x):,} steps of x, expected lengths of at least 1 "
            f"with that sum."
        )
    unit, targets = ("step", len(x)) if sequences.stepwise else ("sequence", len(sequences))
    if len(y) != targets:
        raise DataError(
            f"{who}: got {counted(len(y), 'target')}, expected one per {unit}: {targets:,}."
        )
    numbers = x if x.is_floating_point() or x.dim() == 1 else x[:, :1]  # and not the spelling
    bad, expected = _out_of_range(numbers, sizes.get("vocab_size"))
    if sequences.gaps:
        bad &= ~numbers.isnan()
    _refuse(f"{who}: a value of x", x, bad, expected, lengths)
    scored, least = y, 0
    if sequences.stepwise:
        scored = y.masked_fill(y == IGNORE, least)
    elif sequences.transcribed:
        least = BLANK + 1
        outside = torch.arange(y.shape[1]) >= sequences.target_lengths[:, None]
        scored = y.masked_fill(outside & (y == IGNORE), least)
    bad, expected = _out_of_range(scored, sizes.get("num_classes"), least)
    _refuse(f"{who}: a target", y, bad, expected, lengths if sequences.stepwise else None)
    if sequences.weights is not None:
        _check_weights(who, sequences, sequences.weights)


def _check_weights(who: str, sequences: Sequences, weights: Tensor) -> None:
    """Raise DataError unless there is a weight for each sequence, and some count."""
    if sequences.stepwise or sequences.transcribed:
        raise DataError(
            f"{who}: got weights of sequences with targets of steps or transcripts, expected none: "
            "only a label, or values, of a whole sequence can count more than another's."
        )
    if weights.shape != sequences.lengths.shape:
        raise DataError(
            f"{who}: weights have shape {tuple(weights.shape)}, expected one per sequence: "
            f"({len(sequences)},)."
        )
    bad = ~((weights >= 0) & weights.isfinite())
    _refuse(f"{who}: a weight", weights, bad, "a finite number of at least 0", None)
    if not weights.any():
        raise DataError(
            f"{who}: the weights of all sequences are 0, expected one or more above it: the loss "
            "is their weighted mean."
        )


def _refuse(what: str, values: Tensor, bad: Tensor, expected: str, lengths: Tensor | None) -> None:
    """Raise DataError for the first bad value, if any; values of steps come with ``lengths``."""
    if not bad.any():
        return
    place = tuple(bad.nonzero()[0].tolist())
    number = place[0]
    if lengths is not None:
        number = int(torch.searchsorted(lengths.cumsum(0), number, right=True))
    raise DataError(f"{what} in sequence {number} is {values[place].item()}, expected {expected}.")


def _out_of_range(values: Tensor, classes: int | None, least: int = 0) -> tuple[Tensor, str]:
    if values.is_floating_point():
        return ~values.isfinite(), "finite numbers"
    most = (classes or 0) - 1
    return (values < least) | (values > most), f"{least} to {most}"
