"""Grids of which the quick suite runs a few points, and ``make test-slow`` all."""

import pytest


def mostly_slow(values, quick):
    """The values of a parameter, all but the quick ones marked slow."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]
