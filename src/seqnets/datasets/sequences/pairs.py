"""Pairs of source and target sequences, for transduction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from seqnets.datasets.parts import Part
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.checks import check_sequences
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.datasets.text.codecs import FOREIGN, Codec
from seqnets.errors import DataError
from seqnets.typing import END, IGNORE, Batch, Sizes


@dataclass(frozen=True)
class Pairs(Sequences):
    """N pairs of token sequences, concatenated.

    Attributes:
        x: Tokens of all sources, (steps,) int64; their lengths are in ``lengths``.
        y: Tokens of all targets, (steps,) int64; each ends with ``END``.
        target_lengths: Length of each target, (N,) int64, its ``END`` included.
    """

    target_lengths: Tensor = field(kw_only=True)

    @classmethod
    def of_ids(cls, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> Self:
        """Concatenate pairs of id sequences, appending ``END`` to each target."""
        ended = [np.append(target, END) for target in targets]
        return cls(
            torch.from_numpy(np.concatenate(sources).astype(np.int64)),
            torch.tensor([len(source) for source in sources]),
            torch.from_numpy(np.concatenate(ended).astype(np.int64)),
            target_lengths=torch.tensor([len(target) for target in ended]),
        )

    @classmethod
    def unanswered(cls, sources: Sequence[np.ndarray]) -> Self:
        """Sources with unknown targets: one unscored step each."""
        pairs = cls.of_ids(sources, [np.zeros(0, np.int64)] * len(sources))
        pairs.y.fill_(IGNORE)
        return pairs

    @cached_property
    def ragged(self) -> bool:
        """Whether lengths differ within either side."""
        return self.source.ragged or self.target.ragged

    @cached_property
    def source(self) -> Sequences:
        """The sources alone."""
        return Sequences(self.x, self.lengths, torch.zeros(len(self), dtype=torch.int64))

    @cached_property
    def target(self) -> Sequences:
        """The targets alone."""
        return Sequences(self.y, self.target_lengths, torch.zeros(len(self), dtype=torch.int64))

    def batch(self, rows: Tensor) -> Batch:
        """A batch of pairs: sources padded with zeros, targets with ``IGNORE``.

        Args:
            rows: Indices of the pairs, (B,) int64.
        """
        x, _, lengths, *_ = self.source.batch(rows)
        y, target_lengths = self.target.batch(rows).x, self.target_lengths[rows]
        y[torch.arange(y.shape[1]) >= target_lengths[:, None]] = IGNORE
        return Batch(x, y, lengths)

    def select(self, rows: Tensor) -> Self:
        """The pairs with these indices, in this order."""
        target = self.target.select(rows)
        return replace(super().select(rows), y=target.x, target_lengths=target.lengths)


class PairLoader(SequenceLoader):
    """Batches of whole pairs, optionally grouped by the length of the longer side.

    The arguments are those of :class:`SequenceLoader`.
    """

    @property
    def _sides(self) -> list[np.ndarray]:
        """Lengths of the sources and of the targets."""
        assert isinstance(self._sequences, Pairs)
        return [self._sequences.lengths.numpy(), self._sequences.target_lengths.numpy()]


class PairData(SequenceData):
    """Pairs that a subclass's ``read_splits`` returns as :class:`Pairs`, decoded by ``codecs``.

    A checkpoint stores both codecs, "source" and "target", so that text can be decoded without
    the data. The arguments are those of :class:`SequenceData`.
    """

    unit = "pairs"
    loader_class = PairLoader

    @property
    @abstractmethod
    def codecs(self) -> tuple[Codec, Codec]:
        """The codecs of source and target."""

    @property
    def sizes(self) -> Sizes:
        """Vocabulary sizes of the two sides: ``vocab_size`` and ``target_vocab_size``."""
        source, target = self.codecs
        return {"vocab_size": len(source), "target_vocab_size": len(target)}

    def pairs(self, part: Part) -> Pairs:
        """The pairs of one part."""
        pairs = self.part(part)
        assert isinstance(pairs, Pairs)
        return pairs

    def check_part(self, part: Part) -> None:
        """Raise DataError unless lengths and tokens of both sides fit their codecs."""
        who, pairs, (source, target) = self.name_of(part), self.pairs(part), self.codecs
        for side, sequences, codec in (
            ("source", pairs.source, source),
            ("target", pairs.target, target),
        ):
            sizes = {"vocab_size": len(codec), "num_classes": 1}
            check_sequences(f"{who}, {side}", sequences, sizes)
        ends = pairs.target_lengths.cumsum(0) - 1
        if bool((pairs.y[ends] != END).any()) or int((pairs.y == END).sum()) != len(pairs):
            raise DataError(
                f"{who}: a target does not end with its only token {END}, expected each to."
            )

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including the codecs."""
        source, target = self.codecs
        return {
            **super().describe(),
            "source": source.describe(),
            "target": target.describe(),
        }

    def token_name(self, number: int) -> str:
        """The text of a single source token."""
        return self.codecs[0].pieces([number])[0]

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The first pairs of a part as texts."""
        source, target = self.codecs
        pairs = self.pairs(part)
        batch = pairs.batch(torch.arange(min(count, len(pairs))))
        lengths = pairs.lengths.tolist()
        return [
            {
                "source": source.decode(x[:length].tolist(), FOREIGN),
                "target": target.decode(y.tolist(), FOREIGN),
            }
            for x, y, length in zip(batch.x, batch.y, lengths, strict=False)
        ]
