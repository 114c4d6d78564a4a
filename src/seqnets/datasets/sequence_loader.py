"""Batches of whole sequences."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.loader import Loader, share
from seqnets.errors import DataError, counted
from seqnets.typing import Batch


class Batched(Protocol):
    """What a loader makes batches of."""

    def __len__(self) -> int:
        """Return how many there are to choose from."""

    def batch(self, rows: Tensor) -> Batch:
        """Return those of these numbers, (B,) int64."""

    @property
    def lengths(self) -> Tensor:
        """Steps of each, (N,) int64."""

    @property
    def size(self) -> Tensor:
        """By what similar ones are found, (N,)."""

    @property
    def ragged(self) -> bool:
        """Whether the lengths differ."""

    @property
    def ids(self) -> list[Any] | None:
        """What their file calls them; None where it has no names for them."""

    @property
    def texts(self) -> Mapping[str, Sequence[str | None]]:
        """What their file has to the letter, by column."""


class SequenceLoader(Loader):
    """Batches of whole sequences, shuffled anew in each epoch or in their order.

    Sequences of similar lengths may be put into one batch, so that little of it is padding: a pool
    of so many batches is drawn, sorted by length, and cut into batches, whose order is then random.

    The last batch may be smaller. When several processes train together, every batch is dealt out
    among them; a last batch with fewer sequences than processes joins the one before it, so that
    none gets an empty share.

    Args:
        sequences: What to hand out.
        batch_size: Sequences of a batch for each process.
        shuffle: Whether to shuffle them.
        seed: Decides the order, together with the epoch's number.
        name: What error messages call the sequences.
        bucket_batches: Batches of a pool; 1 puts together what comes together.

    Raises:
        DataError: There are fewer sequences than processes.
    """

    def __init__(
        self,
        sequences: Batched,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        name: str = "sequences",
        bucket_batches: int = 1,
    ) -> None:
        super().__init__()
        self._bucket_batches = bucket_batches
        self._sequences, self._batch_size = sequences, batch_size
        self._shuffle, self._seed = shuffle, seed
        if len(sequences) < (processes := share()[1]):
            raise DataError(
                f"{name}: got {counted(len(sequences), 'sequence')}, expected at least "
                f"{processes}, one for each process."
            )

    def __len__(self) -> int:
        processes = share()[1]
        full = self._batch_size * processes
        return max(1, math.ceil((len(self._sequences) - processes + 1) / full))

    def in_order(self) -> SequenceLoader:
        """Return a loader of the same sequences that does not shuffle them."""
        ordered = copy.copy(self)
        ordered._shuffle = False
        return ordered

    def sample(self) -> Batch:
        """Return a batch of sequences from all over."""
        rank, processes = share()
        count = min(self._batch_size * processes, len(self._sequences))
        rows = np.linspace(0, len(self._sequences) - 1, count).round().astype(np.int64)
        return self._sequences.batch(torch.from_numpy(rows[rank::processes]))

    @property
    def ids(self) -> list[Any] | None:
        """What the file calls the sequences, in its order; None where it has no names for them."""
        return self._sequences.ids

    @property
    def texts(self) -> Mapping[str, Sequence[str | None]]:
        """What the file has to the letter, in its order."""
        return self._sequences.texts

    @property
    def padding(self) -> float:
        """The share of padding among all steps of the coming epoch's batches, 0..1.

        They are those of all processes, each of which has its own to fill up.
        """
        order, processes = self._order(self._epoch), share()[1]
        filled = whole = 0
        for index in range(len(self)):
            rows = self._rows(order, index)
            for side in self._sides:
                for rank in range(processes):
                    lengths = side[rows[rank::processes]]
                    filled, whole = filled + lengths.sum(), whole + len(lengths) * lengths.max()
        return float(1 - filled / whole)

    @property
    def _sides(self) -> list[np.ndarray]:
        """Lengths of each side of the sequences that has padding of its own, (N,) each."""
        return [self._sequences.lengths.numpy()]

    @property
    def _settings(self) -> dict[str, int | float]:
        return {
            "sequences": len(self._sequences),
            "batch_size": self._batch_size,
            "bucket_batches": self._bucket_batches,
            "seed": self._seed,
        }

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self._sequences)
        if not self._shuffle:
            return np.arange(count)
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(count)
        if self._bucket_batches == 1 or not self._sequences.ragged:
            return order
        full = self._batch_size * share()[1]
        sizes, pool = self._sequences.size.numpy(), full * self._bucket_batches
        pools = np.split(order, range(pool, count, pool))
        order = np.concatenate([each[np.argsort(sizes[each], kind="stable")] for each in pools])
        whole = count // full * full  # a smaller batch stays the last
        batches = random.permutation(order[:whole].reshape(-1, full))
        return np.concatenate([batches.ravel(), order[whole:]])

    def _batch(self, order: np.ndarray, index: int) -> Batch:
        rank, processes = share()
        return self._sequences.batch(torch.from_numpy(self._rows(order, index)[rank::processes]))

    def _rows(self, order: np.ndarray, index: int) -> np.ndarray:
        """The numbers of a batch's sequences, those of all processes."""
        full = self._batch_size * share()[1]
        end = len(order) if index == len(self) - 1 else (index + 1) * full
        return order[index * full : end]
