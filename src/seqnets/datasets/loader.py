"""Loaders whose position can be saved and restored exactly, to the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from seqnets.errors import CheckpointError
from seqnets.typing import Batch


def share() -> tuple[int, int]:
    """This process's rank and the world size."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class Loader(ABC):
    """Batches in an order that depends only on a seed and the epoch number.

    ``for batch in loader`` is one whole epoch. After :meth:`load_state_dict` the next pass yields
    exactly the remaining batches, while ``len`` stays that of a whole epoch: Lightning keeps its
    own count of completed batches. :meth:`set_epoch` sets the epoch number; without it, each
    completed pass advances the number by one. Random choices use the loader's own generators,
    never the global ones.

    In distributed training each process's loader yields its shard of every batch, and all
    processes yield the same number of batches.

    Attributes:
        ids: The sequences' identifiers in file order; None if the file has none.
        texts: The file's verbatim texts in file order, by column: "source", ...
    """

    batch_sampler = None  # Lightning expects this attribute on any loader with a sampler

    def __init__(self) -> None:
        self.ids: list[Any] | None = None
        self.texts: Mapping[str, Sequence[Any]] = {}
        # what an epoch's order depends on besides its number, by option name
        self._settings: dict[str, int | float] = {}
        self._epoch = 0
        self._batches = 0
        self._resumed = False

    @abstractmethod
    def __len__(self) -> int:
        """The number of batches in a whole epoch."""

    @abstractmethod
    def _order(self, epoch: int) -> Any:
        """What determines an epoch's batches: sequence indices or stream positions."""

    @abstractmethod
    def _batch(self, order: Any, index: int) -> Batch:
        """This process's shard of one batch of the epoch."""

    def __iter__(self) -> Iterator[Batch]:
        # Lightning creates the iterator before it sets the epoch: nothing here may run until the
        # first batch is requested, which a generator guarantees.
        if not self._resumed:
            self._batches = 0
        self._resumed = False
        order = self._order(self._epoch)
        while self._batches < len(self):
            batch = self._batch(order, self._batches)
            self._batches += 1
            yield batch
        self.set_epoch(self._epoch + 1)

    def in_order(self) -> Loader:
        """A loader that yields all data exactly once, in file order.

        Returns ``self`` by default; override in loaders that shuffle or drop data.
        """
        return self

    def sample(self) -> Batch:
        """This process's shard of a batch for inspection; the position does not change.

        Override where neighbouring sequences are similar, such as files sorted by class.
        """
        return self._batch(self._order(0), 0)

    @property
    def padding(self) -> float:
        """The fraction of padded steps in the next epoch's batches, 0..1."""
        return 0.0

    @property
    def sampler(self) -> Loader:
        """The loader itself: Lightning sets the epoch of a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; the position is kept if that is the current epoch."""
        if epoch != self._epoch:
            self._epoch, self._batches, self._resumed = epoch, 0, False

    def finish(self) -> None:
        """End the current epoch, of which Lightning may have been told to take fewer batches."""
        self._batches, self._resumed = len(self), True

    def state_dict(self) -> dict[str, Any]:
        """The position: the epoch, the batches yielded, and the order's settings."""
        order = {**self._settings, "length": len(self)}
        return {"epoch": self._epoch, "batches": self._batches, "order": order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position returned by :meth:`state_dict`.

        Raises:
            CheckpointError: The position is past the end of the epoch, or within an epoch of a
                different order.
        """
        epoch, batches, order = int(state["epoch"]), int(state["batches"]), state.get("order", {})
        if batches == order.get("length"):
            batches = len(self)  # a finished epoch stays finished, whatever its length was
        if not 0 <= batches <= len(self):
            raise CheckpointError(
                f"{type(self).__name__}: the saved position is batch {batches:,}, "
                f"expected 0 to {len(self):,}.\n"
                "  An epoch has that many batches with this data, batch size and process count.\n"
                "  Resume with the data and settings that the checkpoint was made with."
            )
        if 0 < batches < len(self):
            self._check_order(order)
        self._epoch, self._batches, self._resumed = epoch, batches, True

    def _check_order(self, before: Mapping[str, Any]) -> None:
        """Raise if the settings that decide an interrupted epoch's order have changed."""
        now = self._settings
        changed = [
            f"{name} was {before[name]} and is {now[name]}"
            for name in now
            if name in before and before[name] != now[name]
        ]
        if changed:
            raise CheckpointError(
                f"{type(self).__name__}: the checkpoint lies within an epoch, and "
                f"{', '.join(changed)}: the rest of the epoch would give some of the data twice "
                f"and some not at all.\n"
                "  Resume with the settings that it was made with, or from the end of an epoch."
            )
