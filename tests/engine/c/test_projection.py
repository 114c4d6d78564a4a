"""Loops in C that project the input themselves, step by step, against the reference."""

from functools import partial

import pytest
import torch

from seqnets import Recurrent, unroll
from seqnets.cells import (
    GRUCell,
    LSTMCell,
    MGUCell,
    ONLSTMCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    RNNCell,
    SRUCell,
)
from seqnets.engine import projection
from seqnets.engine.c import compiler, loops
from seqnets.engine.c.projected import can_project
from seqnets.engine.plans import plan_of
from seqnets.testing import check_backend
from tests.engine.user_cells import BareCell, MixtureCell

try:
    compiler.compiler()
except compiler.NoCompiler as reason:
    pytest.skip(str(reason), allow_module_level=True)


class FewerInputsCell(BareCell):
    """A gate that reads the state alone."""

    def make(self, I, H):
        self.inputs, self.recurrent = torch.nn.Linear(I, 3 * H), torch.nn.Linear(H, 4 * H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        (h,) = state
        (i, f, n), (uh_i, uh_f, uh_n, uh_o) = wx.chunk(3, -1), self.recurrent(h).chunk(4, -1)
        gated = torch.sigmoid(f + uh_f) * h + torch.sigmoid(i + uh_i) * torch.tanh(n + uh_n)
        return (torch.sigmoid(uh_o) * gated,)


CELLS = {
    "LSTM": LSTMCell,
    "GRU": GRUCell,
    "two stages": OriginalGRUCell,
    "panels of two vectors": RNNCell,
    "peepholes": PeepholeLSTMCell,
    "minimal": MGUCell,
    "without bias": partial(LSTMCell, bias=False),
    "of another width": partial(LSTMCell, proj_size=2),
    "fewer numbers of the input than of the state": FewerInputsCell,
}


@pytest.fixture
def in_the_loop(monkeypatch):
    """Every loop that can projects the input; nothing is projected before it."""
    monkeypatch.setattr(projection, "_pays_in_the_loop", lambda *sizes: True)
    monkeypatch.setattr(projection, "_product", None)


@pytest.mark.parametrize("hidden_size", [3, 40])
@pytest.mark.parametrize("kind", CELLS)
def test_a_loop_that_projects_the_input_agrees_with_the_reference(kind, hidden_size, in_the_loop):
    assert check_backend(CELLS[kind](5, hidden_size), "c", steps=(1, 6)) == {}


@pytest.mark.parametrize("memory", ["full", "lean"])
def test_its_numbers_are_those_of_a_product_for_all_steps(memory, monkeypatch):
    cell, x = LSTMCell(70, 40), torch.randn(30, 130, 70, requires_grad=True)
    found = []
    for here in (True, False):
        monkeypatch.setattr(projection, "_pays_in_the_loop", lambda *sizes, here=here: here)
        y, state = unroll(cell, x, backend="c", memory=memory)
        found.append((y, *state, *torch.autograd.grad(y.sum(), [x, *cell.parameters()])))

    torch.testing.assert_close(*found)


@pytest.mark.parametrize("split", [(2, 1), (2, 2), (3, 1), (4, 2)])
def test_threads_may_share_its_rows_and_units_in_any_way(split, in_the_loop, monkeypatch):
    monkeypatch.setattr(loops, "threads_and_groups", lambda *arguments: split)
    loops._settings.cache_clear()
    cell, x = GRUCell(5, 40), torch.randn(9, 7, 5)

    try:
        y, _ = unroll(cell, x, backend="c")
    finally:
        loops._settings.cache_clear()

    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


@pytest.mark.parametrize("kind", ["time first", "gaps", "repeated", "opposite"])
def test_the_input_may_lie_in_memory_in_any_way(kind, in_the_loop):
    cell, x = LSTMCell(5, 40), torch.randn(4, 6, 5)
    x = {
        "time first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "gaps": torch.cat([x, x], -1)[..., :5],
        "repeated": x[:1].expand(4, 6, 5),
        "opposite": torch.complex(x, x).conj().imag,
    }[kind]
    with torch.no_grad():
        cell.weight_ih.set_(cell.weight_ih.T.contiguous().T)

    with torch.no_grad():
        y, _ = unroll(cell, x, backend="c")

    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


@pytest.mark.parametrize("needed", [False, True])
def test_a_feature_that_is_none_reaches_units_through_weights_of_zero_too(needed, in_the_loop):
    cell, x = LSTMCell(5, 40), torch.randn(20, 6, 5)
    x[1, 2, 3] = float("nan")
    torch.nn.init.zeros_(cell.weight_ih)

    with torch.set_grad_enabled(needed):
        y, _ = unroll(cell, x, backend="c")

    is_nan = torch.zeros(20, 6, dtype=torch.bool)
    is_nan[1, 2:] = True
    assert torch.equal(y.isnan(), is_nan[..., None].expand_as(y))


@pytest.mark.parametrize("cell_cls", [ONLSTMCell, SRUCell, MixtureCell])
def test_cells_whose_stages_read_their_columns_in_another_way_are_projected_before_the_loop(
    cell_cls, monkeypatch
):
    monkeypatch.setattr(projection, "_pays_in_the_loop", lambda *sizes: True)
    cell = cell_cls(5, 40)

    assert not can_project(plan_of(cell).program)
    assert check_backend(cell, "c", steps=(6,), dtypes=(torch.float64,)) == {}


def test_the_loops_of_most_cells_can_project():
    assert all(can_project(plan_of(cell(3, 8)).program) for cell in CELLS.values())


@pytest.mark.parametrize(
    ("B", "T", "features", "columns", "pays"),
    [
        pytest.param(1, 1, 16, 256, True, id="a small weight"),
        pytest.param(1, 100, 64, 256, False, id="a weight for one row"),
        pytest.param(2, 100, 64, 256, True, id="for two"),
        pytest.param(4, 100, 512, 1024, False, id="a large weight for four"),
        pytest.param(8, 100, 512, 1024, True, id="for eight"),
        pytest.param(8, 1, 512, 1024, False, id="for one step"),
        pytest.param(64, 100, 4096, 1024, False, id="a weight larger than caches"),
    ],
)
def test_it_depends_on_sizes_who_projects(B, T, features, columns, pays, monkeypatch):
    monkeypatch.setattr(projection, "torch_is_slow", lambda: True)

    assert projection._pays_in_the_loop(B, T, features, columns) == pays


def test_where_torchs_products_are_fast_one_of_them_projects_all_steps_by_larger_weights(
    monkeypatch,
):
    monkeypatch.setattr(projection, "torch_is_slow", lambda: False)

    assert projection._pays_in_the_loop(32, 100, 128, 512)
    assert not projection._pays_in_the_loop(32, 100, 256, 512)


def test_layers_project_in_the_loop_where_it_pays(monkeypatch):
    monkeypatch.setattr(projection, "torch_is_slow", lambda: True)
    monkeypatch.setattr(projection, "_product", None)

    Recurrent(PeepholeLSTMCell(16, 32))(torch.randn(8, 4, 16))[0].sum().backward()
