"""How the steps of a user's files become what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.readers import Record
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.vocabulary import Vocabulary, split
from seqnets.errors import DataError


@dataclass(frozen=True)
class FileInputs:
    """How the steps of records become what a model takes.

    Attributes:
        vocabulary: The tokens of text.
        scaling: Of features, if they are standardised.
        forward: Whether a missing feature becomes the one before it, or else 0.
    """

    vocabulary: Vocabulary | None
    scaling: Scaling | None
    forward: bool

    def __call__(self, records: Sequence[Record]) -> tuple[Tensor, Tensor]:
        """Return all steps, (steps,) int64 or (steps, I) float32, and lengths, (N,)."""
        if self.vocabulary is not None:
            tokens = [self._tokens(record, self.vocabulary) for record in records]
            return torch.from_numpy(np.concatenate(tokens)), torch.tensor([len(t) for t in tokens])
        x = torch.from_numpy(np.concatenate([record.steps for record in records]))
        lengths = torch.tensor([len(record.steps) for record in records])
        x = x.float() if self.scaling is None else self.scaling(x)
        return fill(x, lengths, self.forward), lengths

    @staticmethod
    def _tokens(record: Record, vocabulary: Vocabulary) -> np.ndarray:
        tokens = vocabulary.index(split(str(record.steps), vocabulary.unit))
        if not len(tokens):
            raise DataError(f"{record.where}: the text has no {vocabulary.unit}, expected some.")
        return tokens


def fill(x: Tensor, lengths: Tensor, forward: bool) -> Tensor:
    """Return features, (steps, I), of sequences behind each other without their NaN.

    Args:
        x: Features, NaN where one is missing.
        lengths: Steps of each sequence, (N,).
        forward: Whether the feature's last value before it in the sequence takes its place, where
            there is one; 0 otherwise.
    """
    absent = x.isnan()
    if forward and absent.any():
        places = torch.arange(len(x))[:, None].expand_as(x).masked_fill(absent, -1)
        last = places.cummax(0).values
        begun = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)[:, None]
        found = x.gather(0, last.clamp(min=0))
        x = torch.where(absent & (last >= begun), found, x)
    return x.masked_fill(x.isnan(), 0)
