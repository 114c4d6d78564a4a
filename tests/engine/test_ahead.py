"""What steps compute of their input alone, before the loop."""

import pytest
import torch
from torch import nn

from seqnets import Recurrent, unroll
from seqnets.cells import GatedCell, GRUCell, LSTMCell
from seqnets.engine import linear
from seqnets.engine.evaluate import replay
from seqnets.engine.graph import walk
from seqnets.engine.linear import read_parts
from seqnets.engine.plans import plan_of
from seqnets.engine.serialised import step_to_text
from seqnets.testing import check_backend
from tests.engine.user_cells import (
    BareCell,
    DecayCell,
    SelectiveCell,
    SideBySideCell,
    TimeAwareLSTMCell,
    TorchCell,
)

B, T, I, H = 3, 4, 6, 8
CELLS = [DecayCell, SelectiveCell, SideBySideCell, TimeAwareLSTMCell, TorchCell]


@pytest.mark.parametrize("cell_cls", CELLS)
def test_what_is_left_of_a_step_reads_what_was_computed_before_it(cell_cls):
    cell = cell_cls(I, H).double()
    plan, state = plan_of(cell), [torch.randn(B, n).double() for n in cell.state_sizes]
    wx = cell.project(torch.randn(B, T, I).double())

    read = plan.ahead.of(wx, cell.tensors())

    assert read.shape == (B, T, plan.program.step.wx_size)
    found = replay(plan.program.step, read[:, 1], state, cell.tensors())
    torch.testing.assert_close(found, cell.step(wx[:, 1], tuple(state)))


@pytest.mark.parametrize("cell_cls", CELLS)
def test_all_products_and_reductions_in_the_loop_depend_on_the_state(cell_cls):
    step = plan_of(cell_cls(I, H)).program.step

    assert all(read_parts(step, [each.value]) for each in (*step.products, *step.reductions))


class TimedCell(BareCell):
    """The last column of what it multiplies is read once more, as a time."""

    def make(self, I, H):
        self.inputs, self.rec = nn.Linear(I, H), nn.Linear(H, H)

    def step(self, x, state):
        faded = torch.exp(-x[:, -1:].abs()) * state[0]
        return (faded + torch.tanh(self.inputs(x) + self.rec(state[0])),)


class ScaledCell(TimedCell):
    """All units are read, and the first three of them and the second once more."""

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        few = wx[:, :3].mean(-1, keepdim=True) * wx[:, 1:2].sin()
        return (torch.tanh(wx + self.rec(state[0])) * torch.sigmoid(few),)


@pytest.mark.parametrize("cell_cls", [TimedCell, ScaledCell])
def test_compilers_run_loops_where_a_step_reads_parts_of_its_input_twice(cell_cls):
    layer, x = Recurrent(cell_cls(I, H)).double(), torch.randn(B, T, I).double().requires_grad_()

    exported = torch.export.export(layer, (x,)).module()

    assert any("seqnets.unroll" in str(node.target) for node in exported.graph.nodes)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    lengths = torch.tensor([T, 0, 2])
    found = [
        torch.autograd.grad(run(x, lengths=lengths)[0].square().sum(), [x, *layer.parameters()])
        for run in (compiled, layer)
    ]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(exported(x), layer(x))


class AddressingCell(BareCell):
    """Softmaxes of each other, as heads of a neural Turing machine make them in every step."""

    def make(self, I, H):
        self.inputs = nn.Linear(I, H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        (h,) = state
        for _ in range(8):
            h = torch.softmax(wx * h, -1)
        return (h,)


def test_what_each_of_many_reductions_reads_is_looked_up_once(monkeypatch):
    walks = []
    monkeypatch.setattr(linear, "walk", lambda nodes: walks.append(nodes) or walk(nodes))
    step = plan_of(AddressingCell(I, H)).step

    assert len(step.reductions) == 16  # a maximum and a sum each
    assert len(walks) <= 2 * len(step.reductions)


class LargestInputCell(BareCell):
    """Only the largest of the input's units is written."""

    def make(self, I, H):
        self.inputs = nn.Linear(I, H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        a = torch.tanh(wx) * torch.sigmoid(wx)
        return (0.5 * state[0] + a * (a >= a.amax(-1, keepdim=True)),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_compared_with_its_largest_is_computed_where_that_is(dtype):
    cell = LargestInputCell(I, 11).to(dtype)
    x = torch.randn(30, 7, I, dtype=dtype)

    torch.testing.assert_close(*(unroll(cell, x, backend=b)[0] for b in ("c", "reference")))


class WinningInputsCell(GatedCell):
    """Of each four inputs, the largest; the others are zero."""

    gates = ("n",)

    def update(self, wx, uh, state):
        groups = wx.n.view(-1, 5, 4)
        return ((groups * (groups == groups.amax(-1, keepdim=True))).flatten(1),)


def test_what_is_moved_before_loops_is_rounded_by_no_setting_of_torchs_products(
    rounded_products,
):
    cell, x = WinningInputsCell(I, 20), torch.randn(32, 60, I)

    winners = (unroll(cell, x, backend="c")[0] != 0).view(32, 60, 5, 4)

    assert winners.sum(-1).eq(1).all()


class ScaledLargestCell(LargestInputCell):
    """The same of what a number for all units scales, and a condition on it chooses."""

    def make(self, I, H):
        super().make(I, H)
        self.rate = nn.Parameter(torch.tensor([0.4]))

    def step(self, wx, state):
        scale, is_on = torch.exp(self.rate), self.rate > 0
        a = torch.where(is_on, torch.tanh(wx) * scale, 0.5 * wx)
        return (torch.where(is_on, scale, 0.5) * state[0] + a * (a >= a.amax(-1, keepdim=True)),)


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_numbers_for_all_units_and_conditions_on_them_stay_in_the_loop(backend):
    assert check_backend(ScaledLargestCell(I, 11), backend, steps=(4,)) == {}


def test_input_and_state_side_by_side_are_one_product_in_the_loop():
    step = plan_of(SideBySideCell(I, H)).program.step

    assert [(p.weight.rows, p.weight.columns) for p in step.products] == [(4 * H, H)]
    assert step.wx_size == 4 * H


class TwiceReadCell(BareCell):
    """Columns of the input, and of a product, that are read whole and in part."""

    def make(self, I, H):
        self.inputs, self.recurrent = nn.Linear(I, H), nn.Linear(H, H)

    def project(self, x):
        return self.inputs(x)

    def step(self, wx, state):
        z = self.recurrent(state[0])
        return (torch.tanh(wx * wx[:, :1] + wx[:, 1:2] + z * torch.sigmoid(z[:, 2:3])),)


def test_columns_may_be_read_whole_and_in_part():
    for backend in ("c", "eager"):
        assert check_backend(TwiceReadCell(I, H), backend, steps=(1, 4)) == {}


@pytest.mark.parametrize("cell_cls", [LSTMCell, GRUCell])
def test_a_projection_that_is_enough_is_left_as_it_is(cell_cls):
    plan = plan_of(cell_cls(I, H))

    assert plan.ahead is None
    assert step_to_text(plan.program.step) == step_to_text(plan.step)
    assert plan.projection == ("weight_ih", "bias_ih")


def test_what_is_repeated_over_many_units_goes_into_the_loop_as_few():
    class Outer(BareCell):
        states = ("h", "m")

        def make(self, I, H):
            self.inputs = nn.Linear(I, 2 * H)

        @property
        def state_sizes(self):
            return (self.hidden_size, self.hidden_size**2)

        def project(self, x):
            return self.inputs(x)

        def step(self, wx, state):
            k, v = wx.chunk(2, -1)
            m = 0.9 * state[1] + torch.sigmoid(v[:, :, None] * k[:, None]).flatten(1)
            return torch.tanh(m.view(len(m), 8, 8).sum(-1)), m

    assert plan_of(Outer(I, 8)).program.step.wx_size == 2 * 8
