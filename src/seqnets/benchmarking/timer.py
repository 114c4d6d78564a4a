"""Times, taken so that whatever slows the machine down slows all contestants alike."""

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

_SHORTEST = {"cpu": 2.0, "cuda": 10.0}  # ms: what is quicker is run several times in a row
_FEWEST, _MOST = 5, 100  # rounds
_PAUSE = 0.003  # s: threads of whoever ran before may still spin, and would take a core away


@dataclass(frozen=True)
class Times:
    """What a contestant took.

    Attributes:
        median: In ms.
        iqr: Between the first and the third quartile, in ms.
        rounds: How often it was measured.
    """

    median: float
    iqr: float
    rounds: int


def race(runs: Mapping[str, Run], budget: float, device: torch.device) -> dict[str, Times]:
    """Run each contestant once a round, in an order that turns from round to round.

    Args:
        runs: What to time, by name.
        budget: Seconds for all rounds together; there are at least 5.
        device: Where it runs. On a GPU the clock is its own, from the end of the run before to the
            end of the last, and nobody waits in between: what the host needs counts where the GPU
            waits for it, as in training.
    """
    if not runs:
        return {}
    with _no_collector():
        first = {name: _warm(run, device) for name, run in runs.items()}
        shortest = _SHORTEST[device.type]
        repeats = {name: max(1, math.ceil(shortest / took)) for name, took in first.items()}
        round_ms = sum(first[name] * (repeats[name] + 1) + _PAUSE * 1e3 for name in runs)
        rounds = min(max(_FEWEST, int(budget * 1e3 / round_ms)), _MOST)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        names = list(runs)
        for _ in range(rounds):
            for name in names:
                sleep(_PAUSE)
                runs[name]()  # as in training: caches and memory are its own, not the last one's
                taken[name].append(_once(runs[name], device, repeats[name]))
            names = names[1:] + names[:1]
    return {name: _summary(times) for name, times in taken.items()}


def _warm(run: Run, device: torch.device) -> float:
    """Milliseconds of a run that is not the first, unless that is long enough."""
    first = _once(run, device)
    if device.type == "cpu" and first > 50 * _SHORTEST["cpu"]:
        return first
    return _once(run, device)


def _once(run: Run, device: torch.device, repeats: int = 1) -> float:
    """Milliseconds of one run, the mean of some in a row."""
    if device.type == "cuda":
        return _once_on_gpu(run, repeats)
    start = perf_counter()
    for _ in range(repeats):
        run()
    return (perf_counter() - start) * 1e3 / repeats


def _once_on_gpu(run: Run, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()  # behind what is still running: the host is as far ahead as in training
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / repeats


def _summary(times: list[float]) -> Times:
    first, median, third = statistics.quantiles(times, n=4, method="inclusive")
    return Times(median, third - first, len(times))


def wait_for(device: torch.device) -> None:
    """Let a GPU come to the end of all it has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python from collecting garbage in somebody's time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
