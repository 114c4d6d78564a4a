"""Attributes of cells: numbers that change compile nothing anew, tensors are as buffers."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from seqnets import Cell, GatedCell, Recurrent, cells, unroll
from seqnets.engine import explain, plans, reference
from seqnets.engine.request import Request

B, T, I, H = 2, 5, 3, 4


class Annealed(GatedCell):
    """A gate that closes by and by, as a slope or a temperature makes it."""

    gates = ("z", "n")

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.slope, self.age = 1.0, 1

    def update(self, wx, uh, state):
        (h,) = state
        z = self.gate(self.slope * (wx.z + uh.z) / self.age)
        return (h + z * (self.candidate(wx.n + uh.n) - h),)


class Branching(Annealed):
    """One whose gate is another above a number."""

    def update(self, wx, uh, state):
        return super().update(wx, uh, state) if self.slope < 1.25 else (wx.n * state[0],)


@pytest.fixture
def made(monkeypatch):
    """The steps of which programs are made from here on."""
    found, make = [], plans.make_program
    monkeypatch.setattr(plans, "_by_equation", {})
    monkeypatch.setattr(plans, "_programs", {})
    monkeypatch.setattr(plans, "make_program", lambda step: found.append(step) or make(step))
    return found


def by_the_plain_loop(cell, x):
    """What a copy of the cell gives, of which no earlier call is known."""
    return reference.run(Request(copy.deepcopy(cell), x))[0]


@pytest.mark.parametrize("backend", ["c", "eager", "auto"])
@pytest.mark.parametrize(
    ("name", "values"), [("slope", [1.0, 1.1, 1.2, 1.3, 1.4]), ("age", [1, 2, 3, 4, 5])]
)
def test_a_number_on_a_schedule_is_compiled_twice_at_the_most(made, name, values, backend):
    cell, x = Annealed(I, H).double(), torch.randn(B, T, I, dtype=torch.float64)
    for value in values:
        setattr(cell, name, value)
        y, _ = unroll(cell, x, backend=backend)
        (slope,) = torch.autograd.grad(y.square().sum(), cell.weight_ih)

        expected = by_the_plain_loop(cell, x)
        torch.testing.assert_close(y, expected)
        twin = copy.deepcopy(cell)
        twin_y, _ = unroll(twin, x, backend="reference")
        torch.testing.assert_close(
            slope, torch.autograd.grad(twin_y.square().sum(), twin.weight_ih)[0]
        )

    assert len(made) == 2
    assert explain(cell, x).chosen == "c"


def test_a_number_inside_options_may_be_on_a_schedule_too(made):
    options = [cells.LayerNorm, partial(cells.Zoneout, p=0.1)]
    cell, x = cells.optioned(I, H, cell=Annealed, options=options).eval(), torch.randn(B, T, I)
    for value in (1.0, 1.1, 1.2, 1.3):
        cell.innermost.slope = value

        torch.testing.assert_close(unroll(cell, x, backend="c")[0], by_the_plain_loop(cell, x))

    assert len(made) == 2


class WithDefault(GatedCell):
    """One whose class has a value for a number, and for a tensor."""

    gates = ("n",)
    scale = 0.5
    shift = torch.ones(())

    def update(self, wx, uh, state):
        return (self.scale * self.candidate(wx.n + uh.n) + self.shift,)


@pytest.mark.parametrize("backend", ["auto", "c", "reference"])
def test_a_number_that_its_class_has_a_default_for_is_the_cells_own(backend):
    cell, x = WithDefault(I, H), torch.randn(B, T, I)
    cell.shift = 0.0
    for value in (0.5, 1.0, 2.0, 4.0):
        cell.scale = value

        torch.testing.assert_close(unroll(cell, x, backend=backend)[0], by_the_plain_loop(cell, x))
        torch.testing.assert_close(cell.scale, value)


def test_a_tensor_that_its_class_has_a_default_for_is_the_cells_own():
    cell, x = WithDefault(I, H), torch.randn(B, T, I)
    for value in (0.0, 1.0, 2.0):
        cell.shift = torch.tensor(value)

        torch.testing.assert_close(unroll(cell, x)[0], by_the_plain_loop(cell, x))


def test_numbers_that_stay_are_compiled_as_constants(made):
    for slope in (1.0, 2.0):
        cell = Annealed(I, H)
        cell.slope = slope
        unroll(cell, torch.randn(B, T, I), backend="c")

    assert all("slope" not in step.parameters for step in made)


def test_a_number_that_a_step_branches_on_stays_one(made):
    cell, x = Branching(I, H), torch.randn(B, T, I)
    for value in (1.0, 1.2, 1.4, 1.6, 1.1):
        cell.slope = value

        torch.testing.assert_close(unroll(cell, x, backend="c")[0], by_the_plain_loop(cell, x))

    assert all("slope" not in step.parameters for step in made)


@pytest.mark.parametrize("value", [2**64, -(2**70), 1e300])
def test_a_number_that_no_tensor_holds_may_change_too(value):
    cell, x = Annealed(I, H), torch.randn(B, T, I)
    for now in (1, value, 2, value + 1):
        cell.seed, cell.slope = now, float(now)

        torch.testing.assert_close(unroll(cell, x, backend="c")[0], by_the_plain_loop(cell, x))


def test_a_number_may_change_in_training_and_in_evaluation(made):
    layer, x = Recurrent(Annealed(I, H)), torch.randn(B, T, I)
    for value in (1.0, 1.1, 1.2):
        for mode in (True, False):
            layer.train(mode).cell.slope = value

            torch.testing.assert_close(layer(x)[0], by_the_plain_loop(layer.cell, x))

    assert len(made) == 2  # it does not ask for its mode


def test_a_count_of_calls_that_no_step_reads_costs_nothing(monkeypatch):
    cell, x, traced = cells.MGUCell(I, H), torch.randn(B, T, I), []
    trace = plans.trace_step
    monkeypatch.setattr(plans, "_by_equation", {})
    monkeypatch.setattr(plans, "trace_step", lambda *args: traced.append(args) or trace(*args))
    for calls in range(6):
        cell.calls = calls
        unroll(cell, x, backend="c")

    assert len(traced) == 2


def test_a_cell_that_is_another_one_at_every_call_is_left_to_the_plain_loop(monkeypatch):
    monkeypatch.setattr(plans, "_MOST_TRACES", 4)
    cell, x = Annealed(I, H), torch.randn(B, T, I)
    for _ in range(6):
        cell.table = [lambda: 0]  # which nothing can be compared with
        unroll(cell, x)

    explanation = explain(cell, x)
    assert explanation.chosen == "reference"
    assert "or what it reads outside, were changed 4 times" in explanation.refusals["c"]


def test_changes_of_other_classes_are_no_other_equations(monkeypatch):
    monkeypatch.setattr(plans, "_MOST_TRACES", 4)
    cell, x = Annealed(I, H), torch.randn(B, T, I)
    for count in range(6):
        monkeypatch.setattr(Branching, "count", count, raising=False)
        unroll(cell, x)

    assert explain(cell, x).chosen == "c"


class Masked(GatedCell):
    """One with tensors that are neither parameters nor buffers."""

    gates = ("z", "n")

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.kept = torch.arange(self.hidden_size) % 2 == 0
        self.periods = torch.tensor(4.0)

    def update(self, wx, uh, state):
        (h,) = state
        z = torch.where(self.kept, self.gate(wx.z + uh.z), 1.0 / torch.log2(self.periods))
        return (h + z * (self.candidate(wx.n + uh.n) - h),)


def test_tensors_that_are_plain_attributes_are_read_as_buffers_are(made):
    cell, x = Masked(I, H), torch.randn(B, T, I)
    for period in (2.0, 3.0, 4.0):
        cell.periods = torch.tensor(period)
        cell.kept = ~cell.kept

        torch.testing.assert_close(unroll(cell, x, backend="c")[0], by_the_plain_loop(cell, x))

    assert len(made) == 1


def test_a_compiler_reads_plain_tensors_as_buffers_too():
    layer, x, graphs = Recurrent(Masked(I, H)), torch.randn(B, T, I), []
    compiled = torch.compile(layer, backend=lambda module, _: graphs.append(module.graph) or module)

    for period in (2.0, 3.0):
        layer.cell.periods, layer.cell.kept = torch.tensor(period), ~layer.cell.kept
        torch.testing.assert_close(compiled(x), layer(x))

    (graph,) = graphs
    assert calls_the_loop(graph)


def test_an_export_reads_plain_tensors_as_buffers_too():
    layer, x = Recurrent(Masked(I, H)), torch.randn(B, T, I)

    exported = torch.export.export(layer, (x,))

    torch.testing.assert_close(exported.module()(x), layer(x))
    assert calls_the_loop(exported.graph)


def calls_the_loop(graph):
    return any("seqnets.unroll" in str(node.target) for node in graph.nodes)


def test_a_plain_tensor_may_be_one_that_learns():
    cell, x = Masked(I, H).double(), torch.randn(B, T, I, dtype=torch.float64)
    cell.periods = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    slopes = [
        torch.autograd.grad(unroll(cell, x, backend=name)[0].sum(), cell.periods)
        for name in ("c", "reference")
    ]

    torch.testing.assert_close(*slopes)


def test_a_plain_tensor_of_another_dtype_is_left_to_the_plain_loop():
    cell, x = Masked(I, H).double(), torch.randn(B, T, I, dtype=torch.float64)

    assert explain(cell, x).chosen == "reference"
    torch.testing.assert_close(unroll(cell, x)[0], by_the_plain_loop(cell, x))


class Placed(Cell):
    """One whose parameters are all in a module, with a buffer of integers."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.enter = nn.Linear(input_size, hidden_size)
        self.scales = torch.rand(hidden_size)
        self.register_buffer("places", torch.arange(hidden_size).flip(0))

    def project(self, x):
        return self.enter(x)

    def step(self, wx, state):
        return (torch.tanh(wx + self.scales * state[0][:, self.places]),)


def test_plain_tensors_may_stand_beside_a_buffer_of_integers():
    assert explain(Placed(I, H), torch.randn(B, T, I)).chosen == "c"


class Accumulating(Masked):
    """One with a tensor of its own, and another obstacle after it."""

    def update(self, wx, uh, state):
        (masked,) = super().update(wx, uh, state)
        return (masked.cumprod(-1),)


def test_a_plain_tensor_is_not_the_reason_where_there_is_another():
    told = explain(Accumulating(I, H), torch.randn(B, T, I))

    assert "aten.cumprod" in told.refusals["c"]


class Keeping(GatedCell):
    """One that keeps what it saw, to be looked at later."""

    gates = ("n",)

    def update(self, wx, uh, state):
        self.last = self.candidate(wx.n + uh.n)
        return (self.last,)


def test_a_tensor_that_a_step_writes_stays_the_cells_own(monkeypatch):
    cell, x, traced = Keeping(I, H), torch.randn(B, T, I), []
    trace = plans.trace_step
    monkeypatch.setattr(plans, "trace_step", lambda *args: traced.append(args) or trace(*args))
    for _ in range(5):
        y, _ = unroll(cell, x)

        torch.testing.assert_close(y[:, -1], cell.last)
    assert "it writes its attribute last" in explain(cell, x).refusals["c"]
    assert len(traced) <= 3  # without the tensor, with it as a buffer, with it as it is
