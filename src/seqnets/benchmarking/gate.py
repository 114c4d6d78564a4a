"""Correct first: what disagrees with the reference is not timed."""

from __future__ import annotations

import torch

from seqnets.benchmarking.contestants import Outcome

ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""By dtype: the largest difference from the reference in double precision, as a share of its
largest number. Sums over thousands of steps round more than one step does."""


def disagreement(got: Outcome, expected: Outcome, dtype: torch.dtype) -> str | None:
    """Where an outcome leaves the reference's; None if it does not.

    Args:
        got: Outputs and gradients by name; what a contestant does not name is not compared.
        expected: What the reference computes.
        dtype: What the contestant computed in.
    """
    for what, numbers in got.items():
        exact = expected[what]
        if numbers.shape != exact.shape:
            return f"{what} has shape {tuple(numbers.shape)}, expected {tuple(exact.shape)}"
        allowed = ALLOWED[dtype] * exact.abs().max().item()
        difference = (numbers.detach().to(exact) - exact).abs().max().item()
        if not difference <= allowed:  # so that NaN is refused
            return f"{what} differs by {difference:.1e}, allowed are {allowed:.1e}"
    return None
