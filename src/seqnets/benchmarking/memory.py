"""How much memory a pass needs at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from seqnets.engine.memory import nothing_kept


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    """MiB of tensors that are alive at once while it runs, beyond those from before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    counted = torch.autograd.profiler.profile(profile_memory=True)
    with nothing_kept(), _profiler_silent(), counted as profile:
        run()
    events = profile.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(nbytes for _, nbytes in changes), default=0) / 2**20


@contextmanager
def _profiler_silent() -> Iterator[None]:
    """Keep back what torch's profiler writes to stderr, below Python, when it starts and stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
