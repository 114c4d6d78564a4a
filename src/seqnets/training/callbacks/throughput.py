"""Base of callbacks that tell how fast a run is."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, Trainer

from seqnets.typing import Batch


class Timed(Callback):
    """A callback that counts the time steps of a run per second, without validations."""

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._since: float | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Start the clock."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch's time steps, B * T, in all processes."""
        now = time.perf_counter()
        if self._since is not None and isinstance(batch, Batch):
            self._seconds += now - self._since
            self._steps += batch.x.shape[0] * batch.x.shape[1] * trainer.world_size
        self._since = now

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop the clock until the next batch starts."""
        self._since = None

    def read_throughput(self) -> float:
        """Time steps per second since the last reading; 0 before the first batch has ended."""
        rate = self._steps / self._seconds if self._seconds else 0.0
        self._steps, self._seconds = 0, 0.0
        return rate
