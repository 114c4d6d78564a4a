"""What is done in which order, and what is kept for the way back."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import unroll
from seqnets.cells import (
    GatedCell,
    GRUCell,
    LSTMCell,
    MultiplicativeLSTMCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    RNNCell,
)
from seqnets.engine.graph import Untraceable
from seqnets.engine.linear import linear_parts
from seqnets.engine.plans import program_of
from seqnets.engine.program import Buffer
from seqnets.engine.saved_for_backward import FlowNetwork
from seqnets.engine.schedule import make_program
from seqnets.engine.step import Step
from seqnets.engine.tracing.trace import trace_step
from seqnets.testing import check_backend
from tests.cells.final import TRACED_CELLS, sized
from tests.engine import user_cells

I, H = 3, 5
CELLS = {
    **{cls.__name__: partial(sized, cls) for cls in (*TRACED_CELLS, *user_cells.USER_CELLS)},
    "projected": lambda *sizes: LSTMCell(*sizes, proj_size=2),
}


def program(cell_cls, **options):
    return program_of(cell_cls(I, H, **options))


@pytest.mark.parametrize(
    ("cell_cls", "gates"),
    [(RNNCell, 1), (GRUCell, 4), (LSTMCell, 4), (PeepholeLSTMCell, 4), (OriginalGRUCell, 3)],
)
def test_the_fewest_numbers_are_kept(cell_cls, gates):
    assert program(cell_cls).saved_size == gates * H


def test_only_states_that_the_way_back_is_made_of_are_kept():
    class Integrator(GatedCell):
        gates = ("i", "f")
        states = ("h", "c")

        def update(self, wx, uh, state):
            h, c = state
            return (wx.i + uh.i).tanh() * (wx.f + uh.f).sigmoid(), c + h

    class Gated(Integrator):
        def update(self, wx, uh, state):
            h, c = state
            return (wx.i + uh.i).tanh() * (c + wx.f + uh.f).sigmoid(), c + h

    assert program(RNNCell).befores == [0]
    assert program(LSTMCell).befores == [0, 1]
    assert program(Integrator).befores == [0]
    assert program(Gated).befores == [0, 1]  # which lean memory computes the gate from


def test_a_state_is_kept_for_a_sum_that_the_way_back_makes_again():
    class Shifted(GatedCell):
        gates = ("n",)
        states = ("h", "c")

        def update(self, wx, uh, state):
            h, c = state
            return (wx.n + uh.n).tanh() + c.sum(-1, keepdim=True), c + h

    class Scaled(Shifted):
        def update(self, wx, uh, state):
            h, c = state
            return (wx.n + uh.n).tanh() * c.sum(-1, keepdim=True), c + h

    assert program(Shifted).befores == [0]
    assert program(Scaled).befores == [0, 1]


def test_where_the_products_gradient_is_the_inputs_they_share_it():
    assert program(LSTMCell).shared == {0}
    assert program(RNNCell).shared == {0}
    assert program(PeepholeLSTMCell).shared == {0}
    assert program(GRUCell).shared == set()
    assert program(OriginalGRUCell).shared == set()
    assert program(LSTMCell, proj_size=2).shared == {0}


def test_a_product_that_is_narrower_than_the_input_has_a_gradient_of_its_own():
    class HalfRead(GatedCell):
        gates = ("h", "unread")
        recurrent = ("h",)

        def update(self, wx, uh, state):
            return ((wx.h + uh.h).tanh(),)

    assert program(HalfRead).shared == set()


def test_a_reset_before_the_product_makes_two_stages_in_both_passes():
    plan = program(OriginalGRUCell)

    first, second = plan.forward
    assert [(p.product, p.value, p.blocks) for p in first.products] == [(0, Buffer("state"), 2)]
    assert [(p.product, p.value, p.blocks) for p in second.products] == [(1, Buffer("value", 1), 1)]
    assert Buffer("value", 1) in {store.buffer for store in first.stores}
    assert (list(first.state), list(second.state)) == ([], [0])
    assert plan.values == [1]
    assert (plan.part_of(0), plan.part_of(1)) == (0, None)
    assert plan.crossing == H  # the update gate, read by the second stage
    late, early = plan.backward
    assert [p.product for p in late.products] == [0]
    assert [p.product for p in early.products] == [1]
    assert Buffer("dcross") in {store.buffer for store in late.stores}
    carries = [s.add for stage in plan.backward for s in stage.stores if s.buffer.kind == "carry"]
    assert carries == [False, True]


def test_a_projection_is_a_stage_of_its_own_width():
    plan = program(LSTMCell, proj_size=2)

    assert [stage.width for stage in plan.forward] == [H, 2]
    assert [stage.width for stage in plan.backward] == [2, H]
    assert [list(stage.state) for stage in plan.forward] == [[1], [0]]
    assert plan.values == [1]


@pytest.mark.parametrize("kind", CELLS)
def test_every_column_of_what_is_kept_is_stored_once(kind):
    plan = program_of(CELLS[kind](I, H))

    stored = sorted(
        column
        for stage in plan.forward
        for store in stage.stores
        if store.buffer.kind == "saved"
        for column in range(store.offset, store.offset + store.node.width)
    )

    assert stored == list(range(plan.saved_size))


@pytest.mark.parametrize("kind", CELLS)
def test_every_state_is_made_once_and_its_gradient_carried_by_one_first_store(kind):
    plan = program_of(CELLS[kind](I, H))
    parts = list(range(len(plan.step.state)))

    made = sorted(p for stage in plan.forward for p in stage.state)
    carried = [s for stage in plan.backward for s in stage.stores if s.buffer.kind == "carry"]

    assert made == parts
    assert sorted(s.buffer.key for s in carried if not s.add) == parts


def test_columns_that_nothing_reads_are_gaps():
    class Halved(GatedCell):
        gates = ("h", "unread")

        def update(self, wx, uh, state):
            return ((wx.h + uh.h).tanh(),)

    for units in (1, H):
        assert program_of(Halved(I, units)).gaps == {Buffer("dwx"), Buffer("dz", 0)}
    assert program(GRUCell).gaps == set()


def test_without_a_way_back_nothing_is_kept():
    plan = make_program(trace_step(GRUCell(I, H))[0], backward=False)

    assert plan.backward == []
    assert plan.saved_size == 0


class Mixed(GatedCell):
    """Two widths from the start: a wide state, which turns into a delayed one too, and a narrow."""

    gates = ("h", "c")
    recurrent = ()
    states = ("h", "c", "before")
    first = 0

    @property
    def state_sizes(self):
        return (self.hidden_size, self.hidden_size - 1, self.hidden_size)

    def step(self, wx, state):
        h, c, before = state
        narrow = wx[:, self.first : self.first + self.hidden_size - 1]
        return wx[:, : self.hidden_size] + h * before, torch.tanh(narrow + c), h


def test_a_bias_beside_the_input_has_its_gradient_and_no_sums_of_its_own():
    def summed(cell_cls):
        return {(leaf.what.key, leaf.what.offset) for leaf, _ in program(cell_cls).units}

    assert summed(LSTMCell) == set()
    assert summed(MultiplicativeLSTMCell) == set()  # whose input has more columns
    assert summed(PeepholeLSTMCell) == {("p_i", 0), ("p_f", 0), ("p_o", 0)}
    assert summed(GRUCell) == {("bias_hh", 2 * H)}  # which the reset gate multiplies
    assert summed(Negative) == {("bias_hh", 0)}


class Negative(RNNCell):
    def step(self, wx, state):
        return (torch.tanh(wx - F.linear(state[0], self.weight_hh, self.bias_hh)),)


@pytest.mark.parametrize("again", ["bias", "input"])
def test_a_bias_beside_the_input_of_which_another_stage_reads_one_too_has_its_own_sums(again):
    class Twice(user_cells.BareCell):
        def make(self, I, H):
            self.bias, self.weight_hh = self.weight(H), self.weight(H, H)

        def step(self, x, state):
            r = torch.sigmoid(x + self.bias)
            more = self.bias if again == "bias" else x
            return (torch.tanh(F.linear(r * state[0], self.weight_hh) + more),)

    assert check_backend(Twice(H, H), "eager", steps=(4,)) == {}


class EulerCell(GatedCell):
    """A differential equation, by so many steps of Euler's method in each."""

    gates, substeps = ("n",), 0

    def update(self, wx, uh, state):
        (h,) = state
        for _ in range(self.substeps):
            h = h + 0.1 * torch.tanh(wx.n - h)
        return (h + uh.n,)


def euler(substeps):
    return type("Euler", (EulerCell,), {"substeps": substeps})(I, H)


def test_what_many_substeps_read_is_visited_once(monkeypatch):
    step, asked = trace_step(euler(12))[0], []
    whole = Step.whole_state
    monkeypatch.setattr(Step, "whole_state", lambda s, node: asked.append(node) or whole(s, node))

    make_program(step)

    assert len(asked) < 12


def test_long_chains_of_substeps_have_programs_and_longer_ones_are_refused():
    with pytest.raises(Untraceable, match="by weight_hh depends on it"):
        linear_parts(program_of(euler(400)), ("h",))
    with pytest.raises(Untraceable, match="fewer substeps"):
        program_of(euler(1000))


def test_biases_of_one_gradient_have_it_in_two_tensors():
    cell = LSTMCell(I, H)
    y, _ = unroll(cell, torch.randn(2, 4, I), backend="eager")

    first, second = torch.autograd.grad(y.sum(), [cell.bias_ih, cell.bias_hh])

    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()


class Shifted(RNNCell):
    def add_parameters(self, parameter):
        self.shift = parameter(1)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h + self.shift),)


def test_the_gradient_of_one_number_beside_the_input_is_that_of_all_units():
    cell = Shifted(I, H)
    y, _ = unroll(cell, torch.randn(2, 4, I), backend="eager")

    shift, bias = torch.autograd.grad(y.sum(), [cell.shift, cell.bias_ih])

    torch.testing.assert_close(shift, bias.sum(0, keepdim=True))


class Apart(Mixed):
    first = 5


def test_units_of_two_widths_have_stages_of_their_own():
    plan = program(Apart)

    assert [(stage.width, sorted(stage.state)) for stage in plan.forward] == [
        (H, [0, 2]),
        (H - 1, [1]),
    ]
    for backend in ("eager", "c"):
        assert check_backend(Apart(I, H, bias=False), backend, steps=(1, 4)) == {}


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_number_for_all_units_is_computed_by_the_stage_that_reads_it(backend):
    class Scaled(user_cells.BareCell):
        def make(self, I, H):
            self.weight_hh, self.scale = self.weight(H, H), self.weight(1)

        def step(self, x, state):
            r = torch.sigmoid(x + state[0])
            return (torch.tanh(F.linear(r * state[0], self.weight_hh) * self.scale.exp()),)

    assert program_of(Scaled(H, H)).crossing == 0
    assert check_backend(Scaled(H, H), backend, steps=(4,), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_shares_of_many_groups_are_products_for_all_of_them_at_once(function):
    class Sharing(user_cells.BareCell):
        def make(self, I, H):
            self.weight_hh = self.weight((H + 1) * H, H)

        def step(self, x, state):
            given = F.linear(state[0], self.weight_hh).unflatten(-1, (-1, self.hidden_size))
            return (torch.tanh(x + function(given, -1).sin().mean(1)),)

    step = program_of(Sharing(9, 9)).step

    assert len(step.products) == 6  # by the weight, to find the largest, and four between stages
    assert not step.reductions
    for backend in ("c", "eager"):
        assert check_backend(Sharing(9, 9), backend, steps=(4,)) == {}


def test_a_softmax_in_too_many_groups_for_one_product_to_spread_is_traced():
    class Sharing(user_cells.BareCell):
        def make(self, I, H):
            self.weight_hh = self.weight(90 * 11, H)

        def step(self, x, state):
            given = F.linear(state[0], self.weight_hh).unflatten(-1, (90, 11))
            return (torch.tanh(x + given.softmax(-1).flatten(1)[:, :H]),)

    assert check_backend(Sharing(H, H), "eager", steps=(2,), dtypes=(torch.float64,)) == {}


def test_a_product_that_is_only_read_as_a_constant_has_no_stage_on_the_way_back():
    class Watching(user_cells.BareCell):
        def make(self, I, H):
            self.weight_hh = self.weight(H, H)

        def step(self, x, state):
            h = torch.tanh(x + state[0])
            return (h + F.linear(h * h, self.weight_hh).detach().sin(),)

    plan = program_of(Watching(H, H))

    assert [len(stage.products) for stage in plan.forward] == [0, 1]
    assert not any(stage.products for stage in plan.backward)
    for backend in ("c", "eager"):
        assert check_backend(Watching(H, H), backend, steps=(4,)) == {}


def test_for_constants_nothing_is_kept_and_no_gradient_computed():
    class Moving(user_cells.BareCell):
        def make(self, I, H):
            self.weight_hh = self.weight(H, H)

        def step(self, x, state):
            h = torch.tanh(x + state[0])
            moved = (h * h).flip(-1) * torch.arange(1.0, 1 + h.shape[1])
            ahead = (h + 1).detach().flip(-1)
            return (h + F.linear(moved, self.weight_hh) + (ahead * h).flip(-1),)

    plan = program_of(Moving(H, H))
    stored = {store.buffer for stage in plan.backward for store in stage.stores}

    assert plan.kept_sizes == [H, H, plan.saved_size]  # the state, and what the weight multiplies
    assert {each for each in stored if each.kind == "dz"} == {Buffer("dz", k) for k in (0, 1, 3)}
    assert not plan.units
    for backend in ("c", "eager"):
        assert check_backend(Moving(H, H), backend, steps=(4,)) == {}


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_states_that_a_later_stage_compares_alone_get_their_gradients_from_others(backend):
    late, early = program_of(user_cells.LevelsCell(H, H)).backward
    carried = [
        {s.buffer.key: (s.node is None, s.add) for s in stage.stores if s.buffer.kind == "carry"}
        for stage in (late, early)
    ]

    assert carried[0][1] == carried[0][2] == (True, False)
    assert (carried[1][1], carried[1][2]) == ((False, True), (True, True))
    assert check_backend(user_cells.LevelsCell(H, H), backend, steps=(4,)) == {}


def first_filled(m, number=0.5):
    m = m.clone()
    m[:, 0] = number
    return m


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_state_that_becomes_a_constant_is_stored_by_a_stage_of_its_width(units, backend):
    class Filling(user_cells.BareCell):
        states, state_sizes = ("h", "m"), (H, units)

        def make(self, I, H):
            self.rate = self.weight(H)

        def step(self, x, state):
            h, m = state
            return torch.tanh(self.rate * x + h), first_filled(m)

    cell = Filling(H, H)

    for stage in program_of(cell).forward:
        assert {cell.hidden_size if p == 0 else 1 for p in stage.state} == {stage.width}
    check_backend(cell, backend, steps=(1, 3), dtypes=(torch.float64,))


class ForgettingCell(user_cells.BareCell):
    states, state_sizes = ("h", "m", "n", "k"), (H, H, 3, 1)

    def make(self, I, H):
        self.number = self.weight(1)

    def step(self, x, state):
        h, m, n, k = state
        new = torch.tanh(x + h + m + n.sum(-1, keepdim=True) + k)
        return new, torch.full_like(m, 0.5), self.number.expand_as(n), torch.zeros_like(k)


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_states_may_become_one_number(backend):
    assert check_backend(ForgettingCell(H, H), backend, steps=(1, 3)) == {}


class LearnedPieceCell(user_cells.BareCell):
    states, state_sizes = ("h", "m"), (1, 2)

    def make(self, I, H):
        self.rate, self.number = self.weight(1), nn.Parameter(torch.tensor(0.4))

    def step(self, x, state):
        h, m = state
        return self.rate * h + x, first_filled(self.rate * m + x, torch.tanh(self.number))


@pytest.mark.parametrize("backend", ["c", "eager", "scan"])
def test_a_number_that_a_piece_of_a_state_becomes_has_its_gradient(backend):
    check_backend(LearnedPieceCell(1, 1), backend, steps=(1, 3), dtypes=(torch.float64,))


def test_pieces_that_overlap_are_refused():
    step, _ = trace_step(Mixed(I, H))

    with pytest.raises(Untraceable, match="overlap"):
        make_program(step)


class Halved(RNNCell):
    def step(self, wx, state):
        few = self.hidden_size // 2
        return (torch.tanh(wx + F.linear(state[0][:, :few], self.weight_hh[:, :few])),)


def test_some_units_of_a_state_are_a_product_of_all_of_it():
    step = program(Halved).step

    assert [product.value.width for product in step.products] == [H, H // 2]


def test_a_cut_is_the_smallest():
    network = FlowNetwork()
    for tail, head, capacity in [
        ("s", "a", 10),
        ("s", "b", 3),
        ("a", "b", 1),
        ("a", "c", 2),
        ("b", "c", 5),
        ("b", "t", 1),
        ("c", "t", 9),
    ]:
        network.add(tail, head, capacity)

    assert network.near_side("s", "t") == {"s", "a"}  # cuts s-b, a-b and a-c: 6, and no less


def test_of_equal_cuts_the_nearest_to_the_source_is_taken():
    network = FlowNetwork()
    for tail, head in ["sa", "ab", "bt"]:
        network.add(tail, head, 2)

    assert network.near_side("s", "t") == {"s"}


def test_equal_cells_have_one_program_and_others_their_own():
    assert program(LSTMCell) is program(LSTMCell)
    assert program(LSTMCell) is program_of(LSTMCell(I, H, forget_bias=1.0))
    assert program(LSTMCell) is not program(LSTMCell, bias=False)
    assert program(RNNCell) is not program(RNNCell, nonlinearity="relu")
    assert program(RNNCell) is not program_of(RNNCell(I, H + 1))


def test_a_cells_program_is_that_of_its_copies_with_other_parameters():
    cell = user_cells.MinGRUCell(I, H)
    bound = cell.bind({name: p.detach() * 2 for name, p in cell.named_parameters()})

    assert program_of(bound) is program_of(cell)


class _Slope:
    def __init__(self, slope):
        self.slope = slope

    def lean(self, a):
        return torch.tanh(a) * self.slope


class _SlottedSlope:
    __slots__ = ("__dict__", "slope")

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, a):
        return torch.tanh(a) * self.slope


class HoldingCell(GatedCell):
    gates = ("h",)

    def __init__(self, input_size, hidden_size, function):
        super().__init__(input_size, hidden_size)
        self.function = function

    def update(self, wx, uh, state):
        return (self.function(wx.h + uh.h),)


@pytest.mark.parametrize(
    "make",
    [
        lambda slope: partial(F.leaky_relu, negative_slope=slope),
        lambda slope: _Slope(slope).lean,
        _SlottedSlope,
    ],
    ids=["a partial", "a bound method", "an object of slots"],
)
def test_cells_of_one_class_that_hold_other_functions_have_programs_of_their_own(make):
    x = torch.randn(2, 3, I)
    for slope in (0.1, 0.9):
        cell = HoldingCell(I, H, make(slope))

        y, _ = unroll(cell, x, backend="eager")

        torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


class OwnMethodCell(HoldingCell):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size, self.twice)

    def twice(self, a):
        return 2 * torch.tanh(a)


def test_cells_that_hold_equal_functions_share_a_program():
    for make in (
        lambda: HoldingCell(I, H, partial(F.leaky_relu, negative_slope=0.2)),
        lambda: HoldingCell(I, H, _Slope(0.3).lean),
        lambda: OwnMethodCell(I, H),
    ):
        assert program_of(make()) is program_of(make())
