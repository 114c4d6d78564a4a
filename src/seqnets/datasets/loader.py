"""Loaders whose position can be saved and restored to the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from seqnets.errors import CheckpointError
from seqnets.typing import Batch


def share() -> tuple[int, int]:
    """Return this process's rank and the number of processes that train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class Loader(ABC):
    """Batches in an order that depends on nothing but a seed and the epoch's number.

    ``for batch in loader`` is one epoch from its start. After :meth:`load_state_dict` the next
    pass instead yields exactly the batches that were left, while ``len`` stays that of a whole
    epoch: Lightning keeps its own count of the batches done. The epoch's number comes from
    :meth:`set_epoch`; without that call, each pass that runs to its end counts one. Random
    choices come from generators of the loader's own, never from the global ones.

    When several processes train together, each one's loader yields its own share of every batch,
    and all yield equally many.
    """

    batch_sampler = None  # Lightning looks for one in whatever has a sampler

    def __init__(self) -> None:
        self._epoch = 0
        self._batches = 0
        self._resumed = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""

    @abstractmethod
    def _order(self, epoch: int) -> Any:
        """Return what fixes an epoch's batches: sequence numbers or positions in a stream."""

    @abstractmethod
    def _batch(self, order: Any, index: int) -> Batch:
        """Return this process's share of one batch of the epoch."""

    def __iter__(self) -> Iterator[Batch]:
        # Lightning first makes the iterator, then sets the epoch: nothing here may run before the
        # first batch is asked for, which a generator guarantees.
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
        """Return a loader of the same data that gives each once, in its order; itself if it does.

        To be overridden by what shuffles or leaves something out.
        """
        return self

    def sample(self) -> Batch:
        """Return a batch to look at, this process's share; the position stays where it is.

        To be overridden where sequences that come together are alike, as those of one class.
        """
        return self._batch(self._order(0), 0)

    @property
    def ids(self) -> list[Any] | None:
        """What the file calls the sequences, in its order; None where it has no names for them."""
        return None

    @property
    def texts(self) -> Mapping[str, Sequence[str | None]]:
        """What the file has to the letter, known words or not, in its order: "source", ..."""
        return {}

    @property
    def padding(self) -> float:
        """The share of padding among all steps of the coming epoch's batches, 0..1."""
        return 0.0

    @property
    def sampler(self) -> Loader:
        """The loader itself: Lightning sets the epoch of a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; the position in the epoch it is already in stays."""
        if epoch != self._epoch:
            self._epoch, self._batches, self._resumed = epoch, 0, False

    @property
    def _settings(self) -> dict[str, int | float]:
        """What an epoch's order depends on beside its number, by the names that users know."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the epoch, how many of its batches were handed out, the order."""
        order = {**self._settings, "length": len(self)}
        return {"epoch": self._epoch, "batches": self._batches, "order": order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position that :meth:`state_dict` returned.

        Raises:
            CheckpointError: The position lies beyond the end of the epoch, or within an epoch of
                another order.
        """
        epoch, batches, order = int(state["epoch"]), int(state["batches"]), state.get("order", {})
        if batches == order.get("length"):
            batches = len(self)  # nothing is left, however many there were
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
        """Raise where the rest of an epoch would not be what is left of the one that was begun."""
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
