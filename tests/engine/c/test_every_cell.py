"""The loops in C of every cell of the package, and of users' cells, against the reference."""

from itertools import product

import pytest
import torch

from seqnets.cells import ExpRNNCell, IRNNCell, LightGRUCell
from seqnets.engine.c import compiler
from seqnets.testing import check_backend
from seqnets.testing.backend import STEPS
from tests.cells.final import ONE_OF_EACH_KIND, PAIRING_CELLS, TRACED_CELLS, sized, smooth
from tests.engine.user_cells import SHARING, USER_CELLS
from tests.slow import mostly_slow

try:
    compiler.compiler()
except compiler.NoCompiler as reason:
    pytest.skip(str(reason), allow_module_level=True)

GRID = [*product(TRACED_CELLS, (1, 17), (torch.float32, torch.float64))]
QUICK = [
    (cell_cls, hidden_size, dtype)
    for cell_cls, hidden_size, dtype in GRID
    if hidden_size == 17 and (dtype == torch.float32 or cell_cls in ONE_OF_EACH_KIND)
]


@pytest.fixture(autouse=True)
def _optimised(cell_cls, request):
    """One cell of each kind is compiled as users have it; ``make test-slow`` compiles all so."""
    if cell_cls in (*ONE_OF_EACH_KIND, *SHARING):
        request.getfixturevalue("optimised")


@pytest.mark.parametrize(("cell_cls", "hidden_size", "dtype"), mostly_slow(GRID, QUICK))
def test_every_cell_agrees_with_the_reference_and_nothing_is_refused(cell_cls, hidden_size, dtype):
    cell = sized(cell_cls, 3, hidden_size)
    if dtype == torch.float32:
        cell = smooth(cell)

    assert check_backend(cell, "c", steps=(1, 5), dtypes=(dtype,)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell_cls", "hidden_size"),
    [
        (cell_cls, hidden_size)
        for cell_cls, hidden_size in product(TRACED_CELLS, (1, 3, 17, 64, 257))
        if hidden_size < 64 or cell_cls not in PAIRING_CELLS  # the loops refuse so many pairs
    ],
)
def test_every_cell_agrees_with_the_reference_at_every_width_and_time(cell_cls, hidden_size):
    steps = STEPS if hidden_size == 17 else STEPS[:-1]  # the plain loop takes most of the time
    if cell_cls in (IRNNCell, LightGRUCell):
        steps = (1, 2, 19)  # gradients through ReLUs grow to 1e16, and rounding with them
    cell = smooth(sized(cell_cls, 3, hidden_size))
    if cell_cls is ExpRNNCell:  # above 0 its output jumps at 0, where rounding decides which way
        torch.nn.init.constant_(cell.threshold, -0.1)

    assert check_backend(cell, "c", steps=steps) == {}


@pytest.mark.parametrize("hidden_size", mostly_slow([1, 17, 40], quick=[17]))
@pytest.mark.parametrize("cell_cls", USER_CELLS)
def test_a_users_cell_agrees_with_the_reference_with_no_other_edit(cell_cls, hidden_size):
    cell = cell_cls(3, hidden_size)
    assert check_backend(cell, "c", steps=(1, 5), dtypes=(torch.float64,)) == {}
