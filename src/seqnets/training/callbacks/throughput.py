"""How fast a run goes."""

from __future__ import annotations

import time


class Throughput:
    """Time steps per second since the last reading, pauses left out."""

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """A batch begins."""
        if self._since is None:
            self._since = time.perf_counter()

    def add(self, steps: int) -> None:
        """A batch of so many time steps, B * T, has ended."""
        now = time.perf_counter()
        if self._since is not None:
            self._seconds += now - self._since
            self._steps += steps
        self._since = now

    def pause(self) -> None:
        """What comes now is not training."""
        self._since = None

    def read(self) -> float:
        """Time steps per second since the last reading; 0 before the first batch has ended."""
        rate = self._steps / self._seconds if self._seconds else 0.0
        self._steps, self._seconds = 0, 0.0
        return rate
