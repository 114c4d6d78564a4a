"""Correctness check before timing: comparison with the reference."""

from __future__ import annotations

from collections.abc import Callable

from seqnets.benchmarking.contestants import Outcome

ALLOWED = {"float64": 1e-10, "float32": 1e-4, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 5e-2}
"""Maximum difference from the reference in double precision, relative to its largest value, by
dtype. It allows for the rounding of sums over thousands of steps."""

AMPLIFIED = 10
"""A recurrence may amplify rounding errors: a contestant may also differ from double precision by
this factor times the difference of the plain loop in the contestant's dtype."""


def disagreement(
    got: Outcome,
    expected: Outcome,
    share: float,
    rounded: Callable[[], Outcome],
    rounding: float = AMPLIFIED,
) -> str | None:
    """How an outcome differs from the reference's, as text; None if it agrees.

    Args:
        got: Outputs and gradients by name; may lack some, which are not compared.
        expected: The reference's outcome in double precision.
        share: Maximum difference relative to the largest value: see :data:`ALLOWED`.
        rounded: Computes the plain loop's outcome in the contestant's dtype; called if needed.
        rounding: Maximum difference relative to that outcome's: see :data:`AMPLIFIED`.
    """
    for what, numbers in got.items():
        exact = expected[what]
        if numbers.shape != exact.shape:
            return f"{what} has shape {tuple(numbers.shape)}, expected {tuple(exact.shape)}"
        allowed = share * exact.abs().max().item()
        difference = (numbers.detach().to(exact) - exact).abs().max().item()
        if difference > allowed:
            distance = (rounded()[what].detach().to(exact) - exact).abs().max().item()
            allowed = max(allowed, rounding * distance)
        if not difference <= allowed:  # also if it is NaN
            return f"{what} differs by {difference:.1e}, allowed are {allowed:.1e}"
    return None
