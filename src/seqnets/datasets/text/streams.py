"""Token streams, split into parallel rows and consecutive chunks."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.loader import Loader, share
from seqnets.errors import DataError, counted
from seqnets.typing import IGNORE, Batch


class Stream(Loader):
    """B rows of a stream per process; every batch continues the rows of the previous one.

    Args:
        ids: Token ids, (N,), any integer type; may be memory-mapped.
        batch_size: Rows B of each process.
        chunk_length: Steps T of a batch.
        seed: Seed of the random offsets of the training rows.
        name: Name of the stream in error messages.

    Raises:
        DataError: The stream is too short for that many rows.
    """

    def __init__(
        self, ids: np.ndarray, batch_size: int, chunk_length: int, seed: int = 0, name: str = "text"
    ) -> None:
        super().__init__()
        self._ids, self._seed = ids, seed
        self._batch_size, self._steps = batch_size, chunk_length
        self._settings = {
            "tokens": len(ids),
            "batch_size": batch_size,
            "chunk_length": chunk_length,
            "seed": seed,
        }
        if len(ids) < self._needed():
            raise DataError(
                f"{name}: got {counted(len(ids), 'token')}, expected at least "
                f"{self._needed():,}.\n"
                f"  That many fill {counted(self._rows(), 'row')}, batch_size {batch_size} of each "
                f"process, with chunk_length {chunk_length}.\n"
                "  Use a longer text, or a smaller batch_size or chunk_length."
            )

    @abstractmethod
    def _needed(self) -> int:
        """The minimum number of tokens that gives every row a target."""

    def _rows(self) -> int:
        return self._batch_size * share()[1]

    def _own(self, rows: np.ndarray) -> np.ndarray:
        first = self._batch_size * share()[0]
        return rows[first : first + self._batch_size]

    def _read(self, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(self._ids[positions].astype(np.int64))


class TrainingStream(Stream):
    """Full chunks for training, from a new random offset in each epoch.

    The rows do not cover the whole text: between ``chunk_length - 1`` tokens and about a batch
    remain. An epoch starts at a random offset of at most that many tokens, so the boundaries of
    chunks and rows move, no token is missing from all epochs, and the number of batches is fixed.

    Args:
        ids, batch_size, chunk_length, seed, name: As for :class:`Stream`.
        spread: Standard deviation of the chunks' lengths around ``chunk_length``, in steps. If it
            is positive, one chunk in twenty has about half the length, and all lengths are drawn
            anew in each epoch, then scaled so that the chunks fill the rows.

    References:
        Merity et al., 2018, "Regularizing and Optimizing LSTM Language Models",
        arXiv:1708.02182, section 5.1.
    """

    def __init__(self, *args: Any, spread: float = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self._spread = self._settings["spread"] = spread

    def __len__(self) -> int:
        return (len(self._ids) - self._steps) // (self._rows() * self._steps)

    def in_order(self) -> EvaluationStream:
        """A loader in which every token after the first is a target exactly once."""
        return EvaluationStream(self._ids, self._batch_size, self._steps)

    def _needed(self) -> int:
        return (self._rows() + 1) * self._steps

    def _order(self, epoch: int) -> _Chunks:
        random = np.random.default_rng((self._seed, epoch))
        row_length = len(self) * self._steps
        remainder = len(self._ids) - 1 - self._rows() * row_length
        offset = random.integers(remainder + 1)
        starts = offset + row_length * np.arange(self._rows())
        if not self._spread:
            return _Chunks(starts, range(0, row_length + 1, self._steps))
        means = self._steps * random.choice([1.0, 0.5], len(self), p=[0.95, 0.05])
        drawn = np.maximum(random.normal(means, self._spread), 1).cumsum()
        scale = (row_length - len(self)) / drawn[-1]  # each chunk has one step more than that
        boundaries = np.arange(1, len(self) + 1) + np.rint(drawn * scale).astype(np.int64)
        return _Chunks(starts, [0, *boundaries])

    def _batch(self, order: _Chunks, index: int) -> Batch:
        start, stop = order.boundaries[index], order.boundaries[index + 1]
        tokens = self._read(self._own(order.starts)[:, None] + np.arange(start, stop + 1))
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), carry=index > 0)


class _Chunks(NamedTuple):
    """An epoch's rows and chunks.

    Attributes:
        starts: Offset of each row in the text, (rows,).
        boundaries: Offset of each chunk in a row, and the end of the last.
    """

    starts: np.ndarray
    boundaries: Sequence[int]


class EvaluationStream(Stream):
    """Chunks in which every token after the first is a target exactly once, over all processes.

    Rows differ by at most one step in length. Only the last batch is ragged: it has ``lengths``,
    and ``IGNORE`` where a row has ended. It may be one step longer than ``chunk_length``, so that
    no row of it is empty. The arguments are those of :class:`Stream`.
    """

    def __len__(self) -> int:
        shortest_row = (len(self._ids) - 1) // self._rows()
        return math.ceil(shortest_row / self._steps)

    def _needed(self) -> int:
        return self._rows() + 1

    def _order(self, epoch: int) -> np.ndarray:
        return np.arange(self._rows() + 1) * (len(self._ids) - 1) // self._rows()

    def _batch(self, order: np.ndarray, index: int) -> Batch:
        starts = self._own(order[:-1]) + index * self._steps
        lengths = self._own(order[1:]) - starts
        if index < len(self) - 1:
            lengths = np.full_like(lengths, self._steps)
        steps = np.arange(lengths.max())
        outside = torch.from_numpy(steps >= lengths[:, None])
        positions = np.minimum(starts[:, None] + steps, len(self._ids) - 2)
        return Batch(
            self._read(positions).masked_fill(outside, 0),
            self._read(positions + 1).masked_fill(outside, IGNORE),
            torch.from_numpy(lengths) if outside.any() else None,
            carry=index > 0,
        )
