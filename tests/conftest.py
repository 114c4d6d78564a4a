from __future__ import annotations

import gc
import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from absl import logging as absl_logging

SHARED = Path(__file__).parents[2] / "shared" / "data"

if not torch.cuda.is_available():  # Triton reads this on import
    os.environ["TRITON_INTERPRET"] = "1"
# JAX compiles every loop of Flax for one call; it reads this on import.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

_LIBRARIES = {"-O0": {}, "-O3": {}}
"""Loops in C by program and dtype, for each level of optimisation that a test asks for."""

torch.set_num_threads(1)  # sizes are small, and pytest-xdist's workers share the cores

# Keras and JAX log through absl, whose handler would close pytest's stream once Hydra logs.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_configure(config):
    if config.option.markexpr == "not slow":
        _compile_quickly()


def _compile_quickly():
    """Loops in C take a fifth of the time to compile; ``optimised`` compiles them as users do."""
    from seqnets.engine.c import compiler

    compiler.FLAGS = tuple("-O0" if flag == "-O3" else flag for flag in compiler.FLAGS)


def pytest_collection_finish():
    gc.freeze()  # what tests and libraries are made of stays: each collection need not look at it
    gc.set_threshold(10_000, 20, 50)  # collect rarely: compilers and plots leave much


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_compiled_is_left():
    """torch compiles a function a few times in a process, and then runs it as it stands."""
    yield
    if compiler := sys.modules.get("torch._dynamo"):
        compiler.reset()


@pytest.fixture
def optimised(monkeypatch):
    """Loops in C are compiled as users have them, whatever other tests have compiled."""
    _compile_at("-O3", monkeypatch)


@pytest.fixture
def unoptimised(monkeypatch):
    """Loops in C are compiled quickly, by ``make test-slow`` too: for many that are alike."""
    _compile_at("-O0", monkeypatch)


def _compile_at(level, monkeypatch):
    from seqnets.engine.c import compiler, loops, products

    flags = tuple(level if flag in _LIBRARIES else flag for flag in compiler.FLAGS)
    monkeypatch.setattr(compiler, "FLAGS", flags)
    monkeypatch.setattr(loops.C_LOOPS, "_libraries", _LIBRARIES[level])
    monkeypatch.setattr(products, "_library", cache(products._library.__wrapped__))


@pytest.fixture
def rounded_products():
    """Torch may round the numbers that it multiplies to bfloat16, where processors have it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def plain_loop(monkeypatch):
    """Let "auto" choose between torch's kernels and the plain loop, so that nothing is compiled."""
    order = ("native", "reference")
    monkeypatch.setattr("seqnets.engine.dispatch.preference", lambda request: order)


@pytest.fixture
def shared_data():
    """The folder of real data next to the project; it is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data files in ../shared/data")
    return SHARED
