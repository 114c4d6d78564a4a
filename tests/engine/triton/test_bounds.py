"""All tests here check what kernels access (``watched.py``): no memory but their tensors'."""

import pytest
import torch

from seqnets.cells import LSTMCell
from seqnets.testing import check_backend
from seqnets.testing.backend import Variant
from tests.engine.triton.test_loops import loops
from tests.engine.user_cells import CrossedStatesCell, NormedCell

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's


def run_in_several_programs(cell_cls):
    """Run a cell of more rows and units than a program has, with all that a call may have."""
    variant = Variant(rows=19, ragged=True, resets=True, reverse=True, given=True)
    cell = cell_cls(3, 17)
    check_backend(cell, "triton", steps=(3,), dtypes=(torch.float32,), variants=[variant])


@pytest.mark.parametrize("cell_cls", [NormedCell, CrossedStatesCell])
def test_programs_of_a_step_are_apart(cell_cls, using):
    using(loops("step"))

    run_in_several_programs(cell_cls)


@pytest.mark.parametrize(
    ("mode", "right", "wrong", "error"),
    [
        ("rows", "rows = b < B", "rows = b <= B", "accesses memory outside its tensors"),
        ("step", "(u_0 < 17)", "(u_0 < 18)", "accesses memory outside its tensors"),
        ("step", "tl.program_id(0) * 16", "tl.program_id(0) * 8", "accesses what .* stores"),
    ],
)
def test_a_kernel_with_a_mistake_is_found(mode, right, wrong, error, using, monkeypatch):
    from seqnets.engine.triton.kernel import Kernel

    text = Kernel.text
    monkeypatch.setattr(Kernel, "text", lambda *given: text(*given).replace(right, wrong))
    using(loops(mode))

    with pytest.raises(Exception, match=error):
        run_in_several_programs(LSTMCell)
