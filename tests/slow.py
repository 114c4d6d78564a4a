"""Grids of which the quick suite runs a few points, and ``make test-slow`` all."""

import pytest


def mostly_slow(values, quick):
    """The values of a parameter, or tuples of several's, all but the quick ones marked slow."""
    return [v if v in quick else _slow(*(v if isinstance(v, tuple) else (v,))) for v in values]


def _slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)
