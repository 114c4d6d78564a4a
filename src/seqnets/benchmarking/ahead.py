"""Compilation of Triton kernels ahead of the measurements, in parallel processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.contestants import CellFactory, backend, make_workload
from seqnets.benchmarking.precision import precision
from seqnets.errors import SeqnetsError

_STEPS = 2  # the kernel does not depend on the number of steps


def compile_ahead(cases: Sequence[Case], makers: Mapping[str, CellFactory]) -> None:
    """Compile the Triton kernels of cases into Triton's cache on disk, which this process reads.

    Args:
        cases: The cases to be timed.
        makers: The factory of each cell by name; must be picklable.
    """
    short = [replace(case, T=_STEPS) for case in cases if case.pass_ != "step"]
    count = min(len(short), max(1, (os.cpu_count() or 2) - 2))
    context = multiprocessing.get_context("spawn")  # a forked process cannot use the GPU
    workers = [
        context.Process(target=_compile, args=(short[i::count], makers), daemon=True)
        for i in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _compile(cases: Sequence[Case], makers: Mapping[str, CellFactory]) -> None:
    """Run each case once; errors are ignored here, as the measurement will report them."""
    device = torch.device("cuda")
    for case in cases:
        training = case.pass_ == "training"
        try:
            with precision(case.dtype), torch.set_grad_enabled(training):
                backend("triton", make_workload(case, makers[case.cell], device)).run()
        except SeqnetsError:
            continue
