"""Equations drawn at random: every backend gives what the plain loop does, and its gradients.

A seed that fails prints its cell as source, to be pasted into a test of its own or made smaller.
"""

import random

import pytest
import torch

from seqnets.engine.triton import access
from seqnets.testing import check_backend
from seqnets.testing.backend import Variant

from .random_cells import source

SEEDS = 300


def seeds(quick):
    """All seeds, those after the first few marked slow."""
    return [*range(quick), *(pytest.param(n, marks=pytest.mark.slow) for n in range(quick, SEEDS))]


def variant(seed):
    """A call with options at random."""
    chance = random.Random(seed)
    options = {name: chance.random() < 0.5 for name in ("ragged", "resets", "reverse", "given")}
    return Variant(rows=chance.choice([1, 2, 5]), **options)


def check(seed, backend, *, linear=False, dtype=torch.float64):
    """Compare a random cell with the plain loop; the error of one that differs is its source."""
    text, module = source(seed, linear=linear), {}
    exec(text, module)
    call = {"steps": random.Random(seed).sample(range(1, 8), 2), "variants": [variant(seed)]}
    try:
        check_backend(module["cell"], backend, dtypes=[dtype], **call)
    except Exception as error:
        raise AssertionError(f"{error}\n\n# Seed {seed}:\n{text}") from error


@pytest.mark.parametrize("seed", seeds(quick=12))
def test_a_random_equation_in_torchs_operations(seed):
    check(seed, "eager")


@pytest.mark.parametrize("seed", seeds(quick=6))
def test_a_random_linear_equation_in_a_scan(seed):
    check(seed, "scan", linear=True)


@pytest.mark.parametrize("seed", seeds(quick=3))
def test_a_random_equation_in_c(seed):
    check(seed, "c")


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's
@pytest.mark.parametrize("seed", seeds(quick=3))
def test_a_random_equation_in_tritons_interpreter(seed):
    pytest.importorskip("triton", reason="Triton is not installed")
    if not access.interpreted():
        pytest.skip("on a GPU, scripts/gpu_checks.py checks the kernels")
    check(seed, "triton", dtype=torch.float32)
