"""Checks for cells, layers and backends: seqnets' own, and those that users write.

Nothing here needs pytest: a check returns, or raises an AssertionError with the numbers.
"""

from seqnets.testing.backend import check_backend
from seqnets.testing.cell import check_cell
from seqnets.testing.layer import check_layer
from seqnets.testing.paper import one_unit, step

__all__ = ["check_backend", "check_cell", "check_layer", "one_unit", "step"]
