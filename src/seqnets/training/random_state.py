"""Save and restore all random states of a process."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """The random states of torch (all devices), NumPy and Python, as plain values."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def restore(state: dict[str, Any]) -> None:
    """Restore the random states returned by :func:`capture`.

    CUDA states are restored only if the number of devices is unchanged.
    """
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def diverge(rank: int) -> None:
    """Give each process but the first random numbers of its own; all began with the same seed.

    Otherwise dropout would drop the same units in the rows of all processes.
    """
    if rank:
        seeds = np.random.default_rng((torch.initial_seed(), rank))
        torch.manual_seed(int(seeds.integers(2**63)))
