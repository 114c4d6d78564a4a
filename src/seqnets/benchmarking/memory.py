"""Peak memory of a pass."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from seqnets.engine.workspaces import nothing_kept


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """The peak memory of tensors allocated during a run, in MiB."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    profiler = torch.autograd.profiler.profile(profile_memory=True)
    with nothing_kept(), _stderr_silenced(), profiler as profile:
        run()
    events = profile.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(nbytes for _, nbytes in changes), default=0) / 2**20


@contextmanager
def _stderr_silenced() -> Iterator[None]:
    """Silence the messages that torch's profiler writes to stderr from C++."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
