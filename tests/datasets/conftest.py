from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def shared_data():
    """The folder of real data beside the project, which is no part of it."""
    if not SHARED.is_dir():
        pytest.skip("real data files are not beside the project in ../shared/data")
    return SHARED


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
