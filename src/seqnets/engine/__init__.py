"""The engine: a cell over time, by one of several backends with one meaning."""

from seqnets.engine.dispatch import BACKENDS, Explanation, explain, runs
from seqnets.engine.unroll import unroll

__all__ = ["BACKENDS", "Explanation", "explain", "runs", "unroll"]
