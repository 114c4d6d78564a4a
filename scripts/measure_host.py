"""Measure how the time of a call on a GPU divides into Python, launches and kernels.

python scripts/measure_host.py --output FILE

For each case and contestant:

- ``ms``: consecutive calls, contestants in turn; ``one_thread_ms``: the same with autograd in the
  calling thread;
- ``host_us``: time until a call returns to Python, starting with an idle GPU;
- ``device_us``: time of all kernels; ``kernels``: the longest ones, as µs, count and name.

"native, once" is native without the hook for second derivatives.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from seqnets import cells
from seqnets.benchmarking.ahead import compile_ahead
from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.contestants import Absent, Workload, auto, backend, make_workload
from seqnets.benchmarking.precision import precision
from seqnets.benchmarking.surroundings import write_results
from seqnets.benchmarking.timer import race
from seqnets.benchmarking.torch_nn import torch_nn
from seqnets.engine.native import over_time
from seqnets.errors import BackendError

CUDA = torch.device("cuda")

CASES = [
    ("LSTMCell", "float16", 32, 128, 256),
    ("LSTMCell", "float16", 16, 256, 128),
    ("LSTMCell", "float16", 64, 128, 64),
    ("LSTMCell", "float16", 64, 512, 512),
    ("LSTMCell", "float16", 16, 512, 1024),
    ("LSTMCell", "bfloat16", 128, 128, 1024),
    ("LSTMCell", "tf32", 20, 35, 650),
    ("LSTMCell", "tf32", 64, 512, 512),
    ("GRUCell", "float16", 16, 256, 128),
    ("RNNCell", "float16", 32, 128, 256),
    ("PeepholeLSTMCell", "bfloat16", 32, 128, 256),
    ("MinGRUCell", "bfloat16", 16, 1024, 512),
]
KERNELS = 6
SECONDS = 0.3  # time for the rounds of a case

Run = Callable[[], Any]


def contestants(work: Workload) -> dict[str, Run]:
    """The contestants that can run a case."""
    found: dict[str, Run] = {}
    builders = {name: partial(backend, name) for name in ("triton", "scan", "native")}
    for name, build in {"torch.nn": torch_nn, **builders, "auto": auto}.items():
        try:
            contestant = build(work)
            contestant.run()
        except (Absent, BackendError):
            continue
        if contestant.outcome is not None:  # otherwise it computes another cell
            found[name] = contestant.run
    if "native" in found:
        found["native, once"] = partial(once, found["native"])
    return found


def once(run: Run) -> None:
    """Call native without the hook for second derivatives."""
    hook, over_time.let_derive_twice = over_time.let_derive_twice, lambda *call: None
    try:
        run()
    finally:
        over_time.let_derive_twice = hook


def measured(runs: dict[str, Run]) -> dict[str, Any]:
    """The times of each contestant."""
    rows = {
        name: {"ms": round(times.median, 4)} for name, times in race(runs, SECONDS, CUDA).items()
    }
    with torch.autograd.set_multithreading_enabled(False):
        for name, times in race(runs, SECONDS, CUDA).items():
            rows[name]["one_thread_ms"] = round(times.median, 4)
    return {
        name: row | {"host_us": host_us(runs[name])} | on_device(runs[name])
        for name, row in rows.items()
    }


def on_device(run: Run) -> dict[str, Any]:
    """The time of a call's kernels."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    kernels = [
        [round(event.device_time_total, 1), event.count, event.key[:60]]
        for event in profiler.key_averages()
        if event.device_time_total
    ]
    kernels.sort(reverse=True)
    total = round(sum(microseconds for microseconds, *_ in kernels), 1)
    return {"device_us": total, "kernels": kernels[:KERNELS]}


def host_us(run: Run) -> int:
    """The median time until a call returns to Python, in µs."""
    times = []
    for _ in range(9):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(times))


def main() -> None:
    """Measure all cases, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU here, so there is nothing to measure.")
    cases = [
        Case(name, B=B, T=T, I=H, H=H, pass_=pass_, dtype=dtype)
        for name, dtype, B, T, H in CASES
        for pass_ in ("training", "forward")
    ]
    makers = {name: getattr(cells, name) for name, *_ in CASES}
    compile_ahead(cases, makers)
    rows = []
    for case in cases:
        graph = nullcontext() if case.pass_ == "training" else torch.no_grad()
        with precision(case.dtype), graph:
            found = measured(contestants(make_workload(case, makers[case.cell], CUDA)))
        rows.append({"case": case.title, "sizes": case.sizes} | found)
        print(case.title, case.sizes, *(f"{name} {row}" for name, row in found.items()), sep="\n  ")
    write_results(args.output, {"rows": rows})


if __name__ == "__main__":
    main()
