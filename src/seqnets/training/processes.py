"""Communication between the processes of a distributed run."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor

from seqnets.datasets.loader import share


def mean_over_processes(mine: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself in a single one."""
    _, processes = share()
    if processes == 1:
        return mine
    mean = mine / processes
    dist.all_reduce(mean)
    return mean


def gather(mine: dict[str, Any]) -> list[dict[str, Any]]:
    """What each process has, by rank."""
    _, processes = share()
    if processes == 1:
        return [mine]
    gathered: list[Any] = [None] * processes
    dist.all_gather_object(gathered, mine)
    return gathered
