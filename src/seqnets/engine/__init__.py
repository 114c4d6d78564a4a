"""The engine: runs a cell over time by one of several equivalent backends.

A cell's step is traced into a graph (``tracing``, ``graph``), scheduled with its derivative into a
program (``schedule``, ``program``), and run over time by loops that are printed from it (``c``,
``triton``) or interpreted (``eager``).
"""

from seqnets.engine.dispatch import BACKENDS, Explanation, explain, runs
from seqnets.engine.unroll import unroll

__all__ = ["BACKENDS", "Explanation", "explain", "runs", "unroll"]
