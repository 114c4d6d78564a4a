"""Model inputs of a user's sequences: token ids, or features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.readers.records import Record
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.times import Times
from seqnets.datasets.text.vocabulary import Vocabulary, split
from seqnets.errors import DataError


@dataclass(frozen=True)
class FileInputs:
    """Conversion of records to model inputs.

    Attributes:
        vocabulary: The vocabulary of text; None for features.
        scaling: The standardisation of features, if any.
        missing: What a missing value becomes: "forward", the one before it; "keep", NaN; or 0.
        times: What the last feature becomes before it is scaled, if it is the time.
    """

    vocabulary: Vocabulary | None
    scaling: Scaling | None
    missing: str
    times: Times | None = None

    def __call__(self, records: Sequence[Record]) -> tuple[Tensor, Tensor]:
        """All steps, (steps,) int64 or (steps, I) float32, and lengths, (N,)."""
        if self.vocabulary is not None:
            tokens = [self._tokens(record, self.vocabulary) for record in records]
            return torch.from_numpy(np.concatenate(tokens)), torch.tensor([len(t) for t in tokens])
        x = torch.from_numpy(np.concatenate([record.steps for record in records]))
        lengths = torch.tensor([len(record.steps) for record in records])
        if self.times is not None:
            x = self.times(x, lengths)
        x = x.float() if self.scaling is None else self.scaling(x)
        if self.missing != "keep":
            x = fill(x, lengths, self.missing == "forward")
        return x, lengths

    @staticmethod
    def _tokens(record: Record, vocabulary: Vocabulary) -> np.ndarray:
        tokens = vocabulary.index(split(str(record.steps), vocabulary.unit))
        if not len(tokens):
            raise DataError(f"{record.where}: the text has no {vocabulary.unit}, expected some.")
        return tokens


def fill(x: Tensor, lengths: Tensor, forward: bool) -> Tensor:
    """Fill in the missing values of concatenated sequences.

    Args:
        x: Features, (steps, I), NaN where a value is missing.
        lengths: Length of each sequence, (N,).
        forward: Whether a missing value becomes the feature's last one before it in the sequence,
            or 0 if there is none; otherwise it always becomes 0.
    """
    missing = x.isnan()
    if forward and missing.any():
        present = torch.arange(len(x))[:, None].expand_as(x).masked_fill(missing, -1)
        last = present.cummax(0).values  # index of the last value at or before each step
        starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)[:, None]
        before = x.gather(0, last.clamp(min=0))
        x = torch.where(missing & (last >= starts), before, x)
    return x.masked_fill(x.isnan(), 0)
