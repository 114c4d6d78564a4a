"""What the processes of a distributed run tell each other."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


def mean_over_processes(mine: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself in a single one."""
    if not _is_distributed():
        return mine
    mean = mine / dist.get_world_size()
    dist.all_reduce(mean)
    return mean


def gather(mine: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process has, by rank."""
    if not _is_distributed():
        return [mine]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine)
    return gathered


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
