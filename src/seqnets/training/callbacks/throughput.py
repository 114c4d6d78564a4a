"""Throughput of a run."""

from __future__ import annotations

import time


class Throughput:
    """Time steps per second since the last reading, without pauses."""

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Mark the start of a batch."""
        if self._since is None:
            self._since = time.perf_counter()

    def add(self, steps: int) -> None:
        """Mark the end of a batch of ``steps`` time steps, B * T."""
        now = time.perf_counter()
        if self._since is not None:
            self._seconds += now - self._since
            self._steps += steps
        self._since = now

    def pause(self) -> None:
        """Exclude the time until the next batch starts."""
        self._since = None

    def read(self) -> float:
        """Time steps per second since the last reading; 0 before the first batch has ended."""
        rate = self._steps / self._seconds if self._seconds else 0.0
        self._steps, self._seconds = 0, 0.0
        return rate
