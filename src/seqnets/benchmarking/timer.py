"""Timing in interleaved rounds, so that disturbances affect all contestants alike."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Any

import torch

Run = Callable[[], Any]

_SHORTEST = {"cpu": 2.0, "cuda": 10.0}  # ms; shorter runs are repeated within a measurement
_FEWEST, _MOST = 5, 100  # rounds
_PAUSE = 0.003  # s; threads of the previous contestant may still spin, and occupy a core


@dataclass(frozen=True)
class Times:
    """Summary of a contestant's times.

    Attributes:
        median: Median, in ms.
        iqr: Interquartile range, in ms.
        rounds: Number of measurements.
    """

    median: float
    iqr: float
    rounds: int


def race(runs: Mapping[str, Run], budget: float, device: torch.device) -> dict[str, Times]:
    """Time functions in rounds, each function once per round, in rotating order.

    On a GPU, CUDA events measure from the end of the warm-up run to the end of the last run,
    without synchronising in between: as in training, time on the host counts only if the GPU waits
    for it.

    Args:
        runs: The functions, by name.
        budget: Time for all rounds together, in seconds; there are at least 5 rounds.
        device: The device on which they run.
    """
    if not runs:
        return {}
    with _garbage_collection_disabled():
        estimates = {name: _warm_up(run, device) for name, run in runs.items()}
        shortest = _SHORTEST[device.type]
        repeats = {name: max(1, math.ceil(shortest / ms)) for name, ms in estimates.items()}
        round_ms = sum(estimates[name] * (repeats[name] + 1) + _PAUSE * 1e3 for name in runs)
        rounds = min(max(_FEWEST, int(budget * 1e3 / round_ms)), _MOST)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        names = list(runs)
        for _ in range(rounds):
            for name in names:
                sleep(_PAUSE)
                runs[name]()  # fills the caches and the allocator, as in training
                taken[name].append(_once(runs[name], device, repeats[name]))
            names = names[1:] + names[:1]
    return {name: _summary(times) for name, times in taken.items()}


def _warm_up(run: Run, device: torch.device) -> float:
    """The time of a second run, or of the first if it is long, in ms."""
    first = _once(run, device)
    if device.type == "cpu" and first > 50 * _SHORTEST["cpu"]:
        return first
    return _once(run, device)


def _once(run: Run, device: torch.device, repeats: int = 1) -> float:
    """The mean time of some runs in a row, in ms."""
    if device.type == "cuda":
        return _once_on_gpu(run, repeats)
    start = perf_counter()
    for _ in range(repeats):
        run()
    return (perf_counter() - start) * 1e3 / repeats


def _once_on_gpu(run: Run, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()  # without synchronising: the host runs ahead of the GPU, as in training
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / repeats


def _summary(times: list[float]) -> Times:
    first, median, third = statistics.quantiles(times, n=4, method="inclusive")
    return Times(median, third - first, len(times))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _garbage_collection_disabled() -> Iterator[None]:
    """Disable Python's garbage collector, so that it does not run while something is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
