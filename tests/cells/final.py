"""Every cell that seqnets exports, found so that a new one cannot be forgotten."""

from seqnets import cells

ABSTRACT = (cells.Cell, cells.GatedCell, cells.MemoryCell)

FINAL_CELLS = [
    cell
    for cell in (getattr(cells, name) for name in cells.__all__)
    if isinstance(cell, type)
    and issubclass(cell, cells.Cell)
    and cell not in ABSTRACT
    and not issubclass(cell, cells.Wrapper)
]


def sized(cell_cls, input_size, hidden_size, **options):
    """A cell of these sizes, or of equal ones where they have to be."""
    return cell_cls(width(cell_cls, input_size, hidden_size), hidden_size, **options)


def width(cell_cls, input_size, hidden_size):
    """The input size that a cell can have beside a hidden size."""
    return hidden_size if getattr(cell_cls, "square", False) else input_size
