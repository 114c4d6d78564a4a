from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@pytest.fixture
def as_process():
    """Act as one of several processes, without starting the others."""

    @contextmanager
    def act(rank, processes):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=processes)
        try:
            yield
        finally:
            dist.destroy_process_group()

    return act
