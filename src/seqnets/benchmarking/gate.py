"""Correct first: what disagrees with the reference is not timed."""

from __future__ import annotations

from collections.abc import Callable

from seqnets.benchmarking.contestants import Outcome

ALLOWED = {"float64": 1e-10, "float32": 1e-4, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 5e-2}
"""By dtype: the largest difference from the reference in double precision, as a share of its
largest number. Sums over thousands of steps round more than one step does."""

ROUNDING = 10
"""A recurrence may make rounding itself grow: so many times the distance of the plain loop, in the
contestant's dtype, from double precision are allowed too."""


def disagreement(
    got: Outcome,
    expected: Outcome,
    share: float,
    rounded: Callable[[], Outcome] | None = None,
    rounding: float = ROUNDING,
) -> str | None:
    """Where an outcome leaves the reference's; None if it does not.

    Args:
        got: Outputs and gradients by name; what a contestant does not name is not compared.
        expected: What the reference computes.
        share: The difference allowed, of the largest number: :data:`ALLOWED`.
        rounded: What the plain loop computes in the contestant's dtype; asked for where it matters.
        rounding: So many times its distance is allowed.
    """
    for what, numbers in got.items():
        exact = expected[what]
        if numbers.shape != exact.shape:
            return f"{what} has shape {tuple(numbers.shape)}, expected {tuple(exact.shape)}"
        allowed = share * exact.abs().max().item()
        difference = (numbers.detach().to(exact) - exact).abs().max().item()
        if rounded is not None and difference > allowed:
            distance = (rounded()[what].detach().to(exact) - exact).abs().max().item()
            allowed = max(allowed, rounding * distance)
        if not difference <= allowed:  # so that NaN is refused
            return f"{what} differs by {difference:.1e}, allowed are {allowed:.1e}"
    return None
