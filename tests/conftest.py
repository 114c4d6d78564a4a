from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from absl import logging as absl_logging

SHARED = Path(__file__).parents[2] / "shared" / "data"

if not torch.cuda.is_available():  # Triton reads it when it is loaded
    os.environ["TRITON_INTERPRET"] = "1"

torch.set_num_threads(1)  # sizes are small, and workers of pytest-xdist share the cores

# Keras and JAX log by absl, whose handler closes its stream when Hydra sets logging up: pytest's.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture
def shared_data():
    """The folder of real data beside the project, which is no part of it."""
    if not SHARED.is_dir():
        pytest.skip("real data files are not beside the project in ../shared/data")
    return SHARED
