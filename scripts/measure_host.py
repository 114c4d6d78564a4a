"""Measure where the time of a call goes on a GPU: in Python, in launches, or in the kernels.

python scripts/measure_host.py --output FILE

For each case and backend: ``host_us``, until Python has a call behind it while the GPU is idle;
``alone_us``, the same where autograd has no thread of its own; ``ms``, calls one after the other;
``device_us``, all kernels; ``kernels``, the longest of them: µs, how often, name.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from seqnets import cells
from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.contestants import backend, make_workload
from seqnets.benchmarking.precision import precision
from seqnets.benchmarking.surroundings import write_found
from seqnets.errors import BackendError

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
BACKENDS = ("triton", "scan", "native")
KERNELS = 6


def measured(run: Callable[[], Any]) -> dict[str, Any]:
    """Where the time of a call goes."""
    for _ in range(3):
        run()
    with torch.autograd.set_multithreading_enabled(False):
        alone = host_us(run)
    found = {"host_us": host_us(run), "alone_us": alone, "ms": round(in_a_row(run) / 1e3, 4)}
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        run()
        torch.cuda.synchronize()
    kernels = [
        [round(event.device_time_total, 1), event.count, event.key[:60]]
        for event in watched.key_averages()
        if event.device_time_total
    ]
    kernels.sort(reverse=True)
    whole = round(sum(took for took, *_ in kernels), 1)
    return {**found, "device_us": whole, "kernels": kernels[:KERNELS]}


def host_us(run: Callable[[], Any]) -> int:
    """Microseconds until a call is behind Python, which waits for nobody."""
    took = []
    for _ in range(9):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return round(1e6 * statistics.median(took))


def in_a_row(run: Callable[[], Any], calls: int = 10) -> float:
    """Microseconds of a call, of some one after the other."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        run()
    torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - began) / calls


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    rows = []
    for (name, dtype, B, T, H), pass_ in [(c, p) for c in CASES for p in ("training", "forward")]:
        case = Case(name, B=B, T=T, I=H, H=H, pass_=pass_, dtype=dtype)
        row: dict[str, Any] = {"case": case.title, "sizes": case.sizes}
        graph = nullcontext() if pass_ == "training" else torch.no_grad()
        with precision(dtype), graph:
            work = make_workload(case, getattr(cells, name), torch.device("cuda"))
            for which in BACKENDS:
                try:
                    row[which] = measured(backend(which, work).run)
                except BackendError:
                    continue
        rows.append(row)
        told = (f"{which} {row[which]}" for which in BACKENDS if which in row)
        print(row["case"], row["sizes"], *told, sep="\n  ")
    write_found(asked.output, {"rows": rows})


if __name__ == "__main__":
    main()
