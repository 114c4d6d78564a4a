"""Every cell that seqnets exports, found so that a new one cannot be forgotten."""

from seqnets import cells

ABSTRACT = (cells.Cell, cells.GatedCell, cells.MemoryCell)

FINAL_CELLS = [
    cell
    for cell in (getattr(cells, name) for name in cells.__all__)
    if isinstance(cell, type) and issubclass(cell, cells.Cell) and cell not in ABSTRACT
]
