"""Kernels compiled before anything is timed, by several processes at a time."""

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

_STEPS = 2  # any number of them is the same kernel


def compile_ahead(cases: Sequence[Case], makers: Mapping[str, CellFactory]) -> None:
    """Compile the Triton kernels of cases, which Triton keeps on disk for this process.

    Args:
        cases: What will be timed.
        makers: The factory of each cell, which other processes can be sent.
    """
    some = [replace(case, T=_STEPS) for case in cases if case.pass_ != "step"]
    count = min(len(some), max(1, (os.cpu_count() or 2) - 2))
    context = multiprocessing.get_context("spawn")  # a fork cannot use the GPU
    workers = [
        context.Process(target=_compile, args=(some[i::count], makers), daemon=True)
        for i in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _compile(cases: Sequence[Case], makers: Mapping[str, CellFactory]) -> None:
    """Run each case once; what cannot run is told by whoever times it."""
    device = torch.device("cuda")
    for case in cases:
        training = case.pass_ == "training"
        try:
            with precision(case.dtype), torch.set_grad_enabled(training):
                backend("triton", make_workload(case, makers[case.cell], device)).run()
        except SeqnetsError:
            continue
