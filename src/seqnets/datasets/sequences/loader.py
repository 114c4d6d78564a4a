"""Batches of whole sequences."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.augmentation.augmenter import Augmenter
from seqnets.datasets.loader import Loader, share
from seqnets.errors import DataError, counted
from seqnets.typing import Batch


class SequenceSource(Protocol):
    """A collection of sequences from which a loader builds batches."""

    def __len__(self) -> int:
        """The number of sequences."""

    def batch(self, rows: Tensor) -> Batch:
        """The sequences with these indices, (B,) int64, as a batch."""

    @property
    def lengths(self) -> Tensor:
        """Length of each sequence, (N,) int64."""

    @property
    def ragged(self) -> bool:
        """Whether the lengths differ."""

    @property
    def ids(self) -> list[Any] | None:
        """Identifiers from the file; None if it has none."""

    @property
    def texts(self) -> Mapping[str, Sequence[Any]]:
        """Verbatim texts from the file, by column."""


class SequenceLoader(Loader):
    """Batches of whole sequences, reshuffled every epoch or in file order.

    To reduce padding, sequences of similar length can be batched together: a random pool of
    ``bucket_batches`` batches is sorted by length and split into batches, which are then shuffled.

    The last batch may be smaller. In distributed training every batch is split among the
    processes; a last batch with fewer sequences than processes is merged into the one before it,
    so that no shard is empty.

    Args:
        sequences: The sequences to batch.
        batch_size: Sequences in a batch of each process.
        shuffle: Whether to shuffle the sequences.
        seed: Determines the order, together with the epoch number.
        name: Name of the sequences in error messages.
        bucket_batches: Batches in a pool; 1 disables grouping by length.
        augmenter: Changes each batch at random, by seed, epoch, batch and process, unless the
            sequences are in file order or for inspection.

    Raises:
        DataError: There are fewer sequences than processes.
    """

    def __init__(
        self,
        sequences: SequenceSource,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        name: str = "sequences",
        bucket_batches: int = 1,
        augmenter: Augmenter | None = None,
    ) -> None:
        super().__init__()
        self.ids, self.texts = sequences.ids, sequences.texts
        self._bucket_batches = bucket_batches
        self._sequences, self._batch_size = sequences, batch_size
        self._shuffle, self._seed = shuffle, seed
        self._augmenter = augmenter
        self._settings = {
            "sequences": len(sequences),
            "batch_size": batch_size,
            "bucket_batches": bucket_batches,
            "seed": seed,
        }
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
        """A loader of the same sequences without shuffling, as they are."""
        ordered = copy.copy(self)
        ordered._shuffle, ordered._augmenter = False, None
        return ordered

    def sample(self) -> Batch:
        """A batch of evenly spaced sequences."""
        rank, processes = share()
        count = min(self._batch_size * processes, len(self._sequences))
        rows = np.linspace(0, len(self._sequences) - 1, count).round().astype(np.int64)
        return self._sequences.batch(torch.from_numpy(rows[rank::processes]))

    @property
    def padding(self) -> float:
        """The fraction of padded steps in the next epoch's batches, 0..1.

        It covers all processes; each pads its own shard.
        """
        order, sides, processes = self._order(self._epoch), self._sides, share()[1]
        valid = total = 0
        for index in range(len(self)):
            rows = self._rows(order, index)
            for side in sides:
                for rank in range(processes):
                    lengths = side[rows[rank::processes]]
                    valid, total = valid + lengths.sum(), total + len(lengths) * lengths.max()
        return float(1 - valid / total)

    @property
    def _sides(self) -> list[np.ndarray]:
        """Lengths of each side that is padded separately, (N,) each; groups go by the longest."""
        return [self._sequences.lengths.numpy()]

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self._sequences)
        if not self._shuffle:
            return np.arange(count)
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(count)
        if self._bucket_batches == 1 or not self._sequences.ragged:
            return order
        full = self._batch_size * share()[1]
        sizes, pool = np.max(self._sides, 0), full * self._bucket_batches
        pools = np.split(order, range(pool, count, pool))
        order = np.concatenate([each[np.argsort(sizes[each], kind="stable")] for each in pools])
        whole = count // full * full  # a smaller batch stays last
        batches = random.permutation(order[:whole].reshape(-1, full))
        return np.concatenate([batches.ravel(), order[whole:]])

    def _batch(self, order: np.ndarray, index: int) -> Batch:
        rank, processes = share()
        rows = torch.from_numpy(self._rows(order, index)[rank::processes])
        batch = self._sequences.batch(rows)
        if self._augmenter is None:
            return batch
        own = np.random.SeedSequence((self._seed, self._epoch), spawn_key=(index, rank))
        return self._augmenter(batch, generator_of(own))

    def _rows(self, order: np.ndarray, index: int) -> np.ndarray:
        """The sequence indices of a batch, of all processes."""
        full = self._batch_size * share()[1]
        end = len(order) if index == len(self) - 1 else (index + 1) * full
        return order[index * full : end]


def generator_of(seed: np.random.SeedSequence) -> torch.Generator:
    """The random numbers of torch for a seed of NumPy's."""
    return torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
