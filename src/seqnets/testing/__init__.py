"""Checks of cells, layers and backends, for seqnets' own and for users' ones.

They do not need pytest: a check returns, or raises an AssertionError that shows the numbers.
"""

from seqnets.testing.backend import check_backend
from seqnets.testing.cell import check_cell
from seqnets.testing.layer import check_layer
from seqnets.testing.paper import one_unit, step

__all__ = ["check_backend", "check_cell", "check_layer", "one_unit", "step"]
