"""What can be put around any cell: each alone, and over every cell together."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

import seqnets
from seqnets import DeepRNN, Recurrent, cells, unroll
from seqnets.cells import (
    Activations,
    AllStates,
    ClipState,
    Clockwork,
    CoupledLSTMCell,
    DeltaProductCell,
    Dilated,
    GatedCell,
    GRUCell,
    HGRN2Cell,
    InputDropout,
    LayerNorm,
    LearnedState,
    LRUCell,
    LSTMCell,
    LTCCell,
    MinGRUCell,
    MLSTMCell,
    Mogrifier,
    OriginalGRUCell,
    PhasedLSTMCell,
    RecurrentDropout,
    RecurrentHighwayCell,
    RNNCell,
    SLSTMCell,
    VariationalDropout,
    Wrapper,
    Zoneout,
    chrono,
    initialize,
    optioned,
    orthogonal,
    weight_drop,
)
from seqnets.cells.redrawing import register_initializer
from seqnets.errors import ConfigError, DtypeError
from seqnets.layers import Bidirectional
from seqnets.testing import check_backend, check_cell, check_layer, one_unit, step
from tests.slow import mostly_slow

from .final import FINAL_CELLS, lawless, sized, width

OPTIONS = {
    "input dropout": partial(InputDropout, p=0.3),
    "variational dropout": partial(VariationalDropout, p=0.3),
    "recurrent dropout": partial(RecurrentDropout, p=0.3),
    "one mask of recurrent dropout": partial(RecurrentDropout, p=0.3, per_step=False),
    "weight drop": partial(weight_drop, p=0.3),
    "initialize": partial(initialize, weight_ih="xavier_normal"),
    "chrono": partial(chrono, max_steps=20),
    "layer norm": LayerNorm,
    "activations": partial(Activations, candidate="softsign"),
    "zoneout": partial(Zoneout, p=0.3),
    "clipping": partial(ClipState, limit=0.9),
    "learned state": LearnedState,
}
QUICK = (GRUCell, LSTMCell, MinGRUCell, PhasedLSTMCell, SLSTMCell)
PUBLIC = [getattr(cells, name) for name in cells.__all__]
INSIDE_ALL_STATES = [
    wrapper
    for wrapper in PUBLIC
    if isinstance(wrapper, type) and issubclass(wrapper, Wrapper) and wrapper is not AllStates
]
REPRESENTATIVE = (LSTMCell, GRUCell, OriginalGRUCell)


def applied(option, cell):
    """The cell with the option; None if it is not for this cell, which then says so."""
    try:
        return OPTIONS[option](cell)
    except ConfigError:
        return None


def with_all(cell):
    """A cell with every option that applies to it."""
    for option in OPTIONS:
        cell = applied(option, cell) or cell
    return cell


def traceable(cell):
    return "c" not in seqnets.explain(cell, torch.zeros(1, 2, cell.input_size)).refusals


@pytest.mark.parametrize("cell_cls", REPRESENTATIVE)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_leaves_the_laws_of_recurrence_as_they_are(option, cell_cls):
    check_cell(lambda input_size: OPTIONS[option](cell_cls(input_size, 4)).eval())


@pytest.mark.parametrize("cell_cls", mostly_slow(REPRESENTATIVE, quick=(LSTMCell,)))
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_runs_inside_the_loops_in_training(option, cell_cls):
    cell = OPTIONS[option](cell_cls(3, 17))

    assert check_backend(cell, "c", steps=(1, 5), dtypes=(torch.float64,)) == {}
    assert check_backend(cell, "eager", steps=(1, 5), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, QUICK))
def test_all_options_that_apply_to_a_cell_go_together(cell_cls):
    check_cell(
        lambda input_size: with_all(cell_cls(input_size, 4)).eval(),
        input_size=width(cell_cls, 3, 4),
        skip=lawless(cell_cls),
    )


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, (MinGRUCell, SLSTMCell)))
def test_all_options_that_apply_to_a_cell_run_inside_the_loops(cell_cls):
    cell = with_all(sized(cell_cls, 3, 5))
    if not traceable(sized(cell_cls, 3, 5)):
        pytest.skip("the cell itself cannot be traced, and says why")

    assert check_backend(cell, "c", steps=(1, 4), dtypes=(torch.float64,)) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimised")
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_every_option_over_every_cell_obeys_the_laws_and_runs_inside_the_loops(cell_cls, option):
    cell = applied(option, sized(cell_cls, 3, 5))
    if cell is None:
        pytest.skip("the option does not apply to the cell, which says so")

    check_cell(
        lambda input_size: OPTIONS[option](cell_cls(input_size, 4)).eval(),
        input_size=width(cell_cls, 3, 4),
        skip=lawless(cell_cls),
    )
    if traceable(sized(cell_cls, 3, 5)):
        check_backend(cell, "c", steps=(1, 4), dtypes=(torch.float64,))


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_off_in_evaluation_and_draws_nothing(option):
    torch.manual_seed(0)
    cell, x = OPTIONS[option](LSTMCell(3, 5)).eval(), torch.randn(2, 6, 3)
    before = torch.get_rng_state()

    first, second = unroll(cell, x)[0], unroll(cell, x)[0]

    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("option", ["zoneout", "recurrent dropout", "variational dropout"])
@pytest.mark.parametrize("backend", ["c", "eager", "reference"])
def test_second_derivatives_see_the_masks_of_the_first(option, backend):
    cell = OPTIONS[option](LSTMCell(3, 5, dtype=torch.float64))
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    if backend in seqnets.explain(cell, x).refusals:
        pytest.skip("this backend does not run here")

    def once(create_graph):
        torch.manual_seed(3)
        y = unroll(cell, x, backend=backend)[0]
        return torch.autograd.grad(y.square().sum(), x, create_graph=create_graph)[0]

    torch.testing.assert_close(once(True), once(False))


DRAWING = ["zoneout", "recurrent dropout", "variational dropout", "input dropout", "weight drop"]


def slope_of(cell):
    """The gradient for one sample, (T, I)."""
    return torch.func.grad(lambda x: unroll(cell, x[None])[0].square().sum())


@pytest.mark.parametrize("option", DRAWING)
def test_gradients_of_samples_see_a_mask_each_if_asked_to(option):
    torch.manual_seed(0)
    cell, x = OPTIONS[option](LSTMCell(32, 32)), torch.randn(6, 32).expand(4, 6, 32)

    slopes = torch.func.vmap(slope_of(cell), randomness="different")(x)

    assert len(slopes.unique(dim=0)) == 4


@pytest.mark.parametrize("option", DRAWING)
def test_gradients_of_samples_under_one_mask_are_those_of_each_alone(option):
    cell, x = OPTIONS[option](LSTMCell(3, 5)), torch.randn(4, 6, 3)

    def seeded(function, x):
        torch.manual_seed(3)
        return function(x)

    together = seeded(torch.func.vmap(slope_of(cell), randomness="same"), x)

    torch.testing.assert_close(together, torch.stack([seeded(slope_of(cell), row) for row in x]))


@pytest.mark.usefixtures("plain_loop")
def test_a_network_of_optioned_cells_obeys_the_laws_in_every_layer_and_direction():
    make = partial(
        optioned, cell=LSTMCell, options=[LayerNorm, partial(Zoneout, p=0.2), LearnedState]
    )

    check_layer(DeepRNN(make, 3, 4, num_layers=2), skip=())
    check_layer(
        DeepRNN(make, 3, 2, num_layers=1, bidirectional=True),
        skip=("chunks", "steps", "causality"),
    )


@pytest.mark.usefixtures("plain_loop")
def test_an_optioned_network_is_copied_pickled_and_loaded():
    make = partial(optioned, cell=GRUCell, options=[partial(RecurrentDropout, p=0.2), LayerNorm])
    net, x = DeepRNN(make, 3, 4, num_layers=2).eval(), torch.randn(2, 5, 3)
    other = DeepRNN(make, 3, 4, num_layers=2).eval()

    other.load_state_dict(net.state_dict())

    for one in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(one(x)[0], net(x)[0])


def test_compile_sees_an_optioned_cell_as_one_operator():
    make = partial(optioned, cell=LSTMCell, options=[LayerNorm, partial(Zoneout, p=0.2)])
    layer, x = Recurrent(make(3, 5)).eval(), torch.randn(2, 6, 3)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")

    torch.testing.assert_close(compiled(x)[0], layer(x)[0])


# Zoneout


def test_zoneout_keeps_old_units_or_takes_new_ones_and_nothing_between():
    torch.manual_seed(0)
    inner = LSTMCell(3, 50)
    cell, x = Zoneout(inner, 0.4), torch.randn(4, 3)
    state = tuple(torch.randn(4, 50) for _ in range(2))

    _, after = cell(x, state)
    _, new = inner(x, state)

    kept = [(part == old) for part, old in zip(after, state, strict=True)]
    taken = [torch.isclose(part, other) for part, other in zip(after, new, strict=True)]
    assert all((k | t).all() for k, t in zip(kept, taken, strict=True))
    assert 0.3 < torch.cat(kept).float().mean() < 0.5


def test_zoneout_in_evaluation_is_the_mean_over_its_masks():
    cell = Zoneout(one_unit(RNNCell, w=(0.5,), u=(0.7,)), 0.25).eval()
    h, x = -1.5, 2.0

    assert step(cell, x, h) == pytest.approx(
        0.25 * h + 0.75 * math.tanh(0.5 * x + 0.7 * h), abs=1e-12
    )


def test_zoneout_takes_a_probability_for_each_part_of_the_state():
    torch.manual_seed(0)
    cell = Zoneout(LSTMCell(3, 20), {"c": 0.9})
    h, c = torch.randn(4, 20), torch.randn(4, 20)

    _, (h_after, c_after) = cell(torch.randn(4, 3), (h, c))

    assert not (h_after == h).any()
    assert (c_after == c).float().mean() > 0.7


@pytest.mark.parametrize(
    ("p", "message"),
    [(1.0, "probability"), (-0.1, "probability"), ({"m": 0.1}, "'m'"), ("half", "probability")],
)
def test_zoneout_refuses_what_is_no_probability_of_a_state(p, message):
    with pytest.raises(ConfigError, match=message):
        Zoneout(LSTMCell(3, 4), p)


# Dropout


def test_recurrent_dropout_never_forgets_a_memory():
    cell = LSTMCell(1, 30, dtype=torch.float64)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    cell.split(cell.bias_ih).f.data.fill_(50.0)  # the forget gate is open, the candidate is 0.9
    cell.split(cell.bias_ih).g.data.fill_(math.atanh(0.9))
    dropped = RecurrentDropout(cell, 0.5)
    state = tuple(torch.ones(1, 30, dtype=torch.float64) for _ in range(2))

    _, (_, c) = dropped(torch.zeros(1, 1, dtype=torch.float64), state)

    values = {round(v, 12) for v in c[0].tolist()}
    assert values == {1.0, 1.0 + 0.5 * 0.9 / 0.5}


class PairsCell(GatedCell):
    """A candidate of two numbers for each unit."""

    gates = ("a", "b")

    def update(self, wx, uh, state):
        first, second = self.candidate(torch.cat([wx.a + uh.a, wx.b + uh.b], -1)).chunk(2, -1)
        return (first + second,)


def test_recurrent_dropout_drops_each_number_of_a_candidate_that_is_wider_than_the_state():
    cell = PairsCell(1, 30, dtype=torch.float64)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(cell.bias_ih, math.atanh(0.5))
    dropped = RecurrentDropout(cell, 0.5)

    h, _ = dropped(torch.zeros(1, 1, dtype=torch.float64), (torch.zeros(1, 30).double(),))

    assert {round(value, 12) for value in h[0].tolist()} == {0.0, 1.0, 2.0}


def test_recurrent_dropout_drops_numbers_of_candidates_by_heads_row_by_row():
    cell = HGRN2Cell(3, 8, num_heads=2)
    x = torch.randn(2, 1, 3)  # as many rows as heads
    _, (_, whole) = unroll(cell, x, backend="reference")

    _, (_, memory) = unroll(RecurrentDropout(cell, 0.5), x, backend="reference")

    kept = (memory / whole).view(2, 2, 4, 4)  # a row, a head, a key, a value
    torch.testing.assert_close(kept, kept[:, :, :1].expand_as(kept))
    assert {round(share, 4) for share in kept.flatten().tolist()} == {0.0, 2.0}
    assert not torch.equal(kept[0], kept[1])


def test_recurrent_dropout_refuses_candidates_that_differ_in_width():
    class Uneven(PairsCell):
        def update(self, wx, uh, state):
            (h,) = super().update(wx, uh, state)
            return (self.candidate(h),)

    with pytest.raises(ConfigError, match="of Uneven are 4, 8 wide, expected one width"):
        RecurrentDropout(Uneven(3, 4))


def test_variational_dropout_drops_the_same_units_at_every_step_and_carries_all():
    torch.manual_seed(0)
    cell = VariationalDropout(GRUCell(2, 40), 0.5)
    wx = cell.project(torch.randn(3, 7, 2))
    mask = wx[..., -40:]

    assert (mask == mask[:, :1]).all()
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(mask[0], mask[1])


def test_variational_dropout_is_that_of_the_recurrent_product():
    torch.manual_seed(0)
    inner = GRUCell(2, 6, dtype=torch.float64)
    cell, x = VariationalDropout(inner, 0.5), torch.randn(3, 2, dtype=torch.float64)
    h = torch.randn(3, 6, dtype=torch.float64)

    torch.manual_seed(1)
    mask = cell.project(x)[..., -6:]
    torch.manual_seed(1)
    _, (after,) = cell(x, (h,))

    w, u = inner.split(inner.project(x)), inner.recur(h * mask)
    r, z = torch.sigmoid(w.r + u.r), torch.sigmoid(w.z + u.z)
    n = torch.tanh(w.n + r * u.n)
    torch.testing.assert_close(after, (1 - z) * n + z * h)  # h itself is whole


@pytest.mark.parametrize("around", [lambda cell: cell, LayerNorm])
def test_recurrent_products_of_some_gates_have_names(around):
    class NamedGRUCell(OriginalGRUCell):
        def step(self, wx, state):
            (h,) = state
            w, u = self.split(wx), self.recur(h, "r", "z")
            r, z = self.gate(w.r + u.r), self.gate(w.z + u.z)
            n = self.candidate(w.n + self.recur(r * h, "n").n)
            return ((1 - z) * n + z * h,)

    named, unpacked = NamedGRUCell(2, 3), OriginalGRUCell(2, 3)
    named.load_state_dict(unpacked.state_dict())
    x, h = torch.randn(4, 2), torch.randn(4, 3)

    torch.testing.assert_close(around(named)(x, (h,)), around(unpacked)(x, (h,)))


@pytest.mark.parametrize("memory", ["full", "lean"])
def test_one_mask_serves_a_whole_sequence_in_either_memory(memory):
    cell = VariationalDropout(LSTMCell(2, 8), 0.5)
    x = torch.randn(2, 200, 2, requires_grad=True)  # three of lean memory's chunks

    def outputs(memory):
        torch.manual_seed(5)
        y = unroll(cell, x, memory=memory)[0]
        return y, torch.autograd.grad(y.square().sum(), x)[0]

    torch.testing.assert_close(outputs(memory), outputs("full"))


@pytest.mark.parametrize("first", ["batch", "time"])
def test_a_mask_for_a_sequence_knows_time_however_memory_is_laid_out(first):
    cell = InputDropout(RNNCell(2, 3), 0.5, per_step=False)
    x = torch.ones(4, 9, 2, requires_grad=True)
    laid_out = x if first == "batch" else x.transpose(0, 1).contiguous().transpose(0, 1)

    y = unroll(cell, laid_out)[0]
    (grad,) = torch.autograd.grad(y.sum(), laid_out)

    dropped = grad == 0
    assert (dropped == dropped[:, :1]).all()
    assert dropped.any()


@pytest.mark.parametrize("option", [InputDropout, RecurrentDropout])
def test_dropout_is_by_step_or_not_and_nothing_else(option):
    with pytest.raises(DtypeError, match="per_step is 'no', expected True or False"):
        option(LSTMCell(2, 3), per_step="no")


@pytest.mark.parametrize("per_step", [True, False])
def test_input_dropout_drops_features_by_step_or_by_sequence(per_step):
    torch.manual_seed(0)
    cell = InputDropout(RNNCell(50, 2), 0.3, per_step=per_step)
    x = torch.ones(4, 9, 50, requires_grad=True)

    unroll(cell, x)[0].sum().backward()

    dropped = x.grad == 0
    assert 0.2 < dropped.float().mean() < 0.4
    assert (dropped == dropped[:, :1]).all() != per_step


def test_weight_drop_draws_once_a_call_and_uses_all_weights_in_evaluation():
    torch.manual_seed(0)
    cell = weight_drop(LSTMCell(3, 10), 0.5)
    original = cell.parametrizations.weight_hh.original

    drawn = cell.weight_hh
    assert 0.3 < (drawn == 0).float().mean() < 0.7
    torch.testing.assert_close(drawn[drawn != 0], 2 * original[drawn != 0])

    cell.eval()
    assert torch.equal(cell.weight_hh, original)


@pytest.mark.parametrize("backend", ["c", "native", "reference"])
def test_weight_drop_is_the_same_at_all_steps_of_a_call(backend):
    cell = weight_drop(RNNCell(1, 12, bias=False), 0.5)
    x = torch.zeros(1, 8, 1)
    state = (torch.full((1, 12), 1e-3),)  # so small that tanh is the identity

    y = unroll(cell, x, state, backend=backend)[0][0]

    step_matrix = torch.linalg.lstsq(y[:-1], y[1:]).solution
    torch.testing.assert_close(y[:-1] @ step_matrix, y[1:], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("cell_cls", [LTCCell, partial(RecurrentHighwayCell, depth=2)])
def test_a_single_step_is_that_of_a_sequence_wherever_it_reads_a_dropped_weight(cell_cls):
    cell, x = weight_drop(cell_cls(2, 12), 0.5), torch.randn(4, 2)
    torch.manual_seed(1)
    expected, _ = unroll(cell, x[:, None], backend="reference")

    for take in (cell, Recurrent(cell).step):
        torch.manual_seed(1)
        torch.testing.assert_close(take(x)[0], expected[:, 0])


@pytest.mark.parametrize("resets", [None, torch.tensor([True, False, True, False])])
@pytest.mark.parametrize("wrapper", [lambda cell: cell, LearnedState])
def test_a_single_step_drops_as_a_sequence_does_whatever_it_is_given(wrapper, resets):
    cell = wrapper(weight_drop(GRUCell(2, 12), 0.5, weights=("weight_ih", "weight_hh")))
    x, state = torch.randn(4, 2), (torch.randn(4, 12),)
    torch.manual_seed(1)
    of_steps = None if resets is None else resets[:, None]
    expected, _ = unroll(cell, x[:, None], state, resets=of_steps, backend="reference")

    for take in (cell, Recurrent(cell).step) if resets is None else (Recurrent(cell).step,):
        torch.manual_seed(1)
        given = () if resets is None else (resets,)
        torch.testing.assert_close(take(x, state, *given)[0], expected[:, 0])


class ReadsTwice(GatedCell):
    gates = ("n",)

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.bend = nn.Sequential(nn.Linear(self.hidden_size, self.hidden_size))

    def update(self, wx, uh, state):
        return (wx.n + (self.bend(uh.n) - self.bend(uh.n)),)


@pytest.mark.parametrize("wrap", [lambda cell: cell, Mogrifier])
def test_a_weight_of_a_module_inside_is_computed_once_in_a_call(wrap):
    cell, x = wrap(ReadsTwice(3, 4)), torch.randn(2, 5, 3)
    parametrize.register_parametrization(cell.innermost.bend[0], "weight", nn.Dropout(0.5))
    cell.innermost.weight_ih = nn.Parameter(torch.zeros(4, 3))
    nn.init.ones_(cell.innermost.bias_ih)

    for backend in ("c", "eager", "reference"):
        assert unroll(cell, x, backend=backend)[0].eq(1).all()
    assert cell(x[:, 0])[0].eq(1).all()
    assert Recurrent(cell).step(x[:, 0])[0].eq(1).all()


def test_a_weight_of_a_module_inside_that_is_normalised_is_learned_by_loops():
    class Bent(ReadsTwice):
        def update(self, wx, uh, state):
            return (torch.tanh(wx.n + self.bend(uh.n)),)

    cell = Bent(3, 4)
    weight_norm(cell.bend[0])

    assert check_backend(cell, "c", steps=(3,), dtypes=(torch.float64,)) == {}


def test_weight_drop_is_drawn_anew_in_the_other_direction():
    layer = Bidirectional(weight_drop(GRUCell(3, 4), 0.5)).eval()

    block = layer.backward_layer.cell.weight_hh[:4]
    torch.testing.assert_close(block @ block.T, torch.eye(4))
    assert not torch.equal(block, layer.forward_layer.cell.weight_hh[:4])


def test_weight_drop_says_which_parameters_there_are():
    with pytest.raises(ConfigError, match="weight_hh"):
        weight_drop(LSTMCell(3, 4), 0.5, weights=("weight_xx",))


# Layer norm, clipping, activations, learned state


def test_layer_norm_follows_its_paper():
    torch.manual_seed(0)
    inner = LSTMCell(3, 4, dtype=torch.float64)
    weight, recurrent = inner.weight_ih.tolist(), inner.weight_hh.tolist()
    bias = inner.bias_ih.tolist()
    cell = LayerNorm(inner)
    x, h, c = [0.3, -1.2, 0.7], [0.1, -0.4, 0.9, 0.2], [1.0, -0.5, 0.3, 0.8]

    def normed(values):
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        return [(v - mean) / math.sqrt(variance + 1e-5) for v in values]

    def product(matrix, vector):
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    def sigmoid(a):
        return 1 / (1 + math.exp(-a))

    sums = zip(normed(product(weight, x)), bias, normed(product(recurrent, h)), strict=True)
    a = [w + b + u for w, b, u in sums]
    i, f, g, o = a[0:4], a[4:8], a[8:12], a[12:16]
    memory = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(4)]
    shown = normed(memory)
    expected = [sigmoid(o[k]) * math.tanh(shown[k]) for k in range(4)]

    rows = [torch.tensor([v], dtype=torch.float64) for v in (x, h, c)]
    y, (_, c_after) = cell(rows[0], (rows[1], rows[2]))
    assert y[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert c_after[0].tolist() == pytest.approx(memory, abs=1e-12)


def test_layer_norm_keeps_the_forget_bias_of_the_cell_it_goes_around():
    cell = LayerNorm(LSTMCell(3, 4, forget_bias=2.0))

    assert cell.innermost.bias_ih is None
    assert torch.equal(cell.innermost.split(cell.shift_ih).f, torch.full((4,), 2.0))
    back = Bidirectional(cell).backward_layer.cell
    assert torch.equal(back.innermost.split(back.shift_ih).f, torch.full((4,), 2.0))


def test_layer_norm_of_a_cell_without_biases_is_drawn_anew_as_it_was_made():
    cell = LayerNorm(LSTMCell(3, 4, bias=False))

    cell.reset_parameters()

    assert not cell.shift_ih.any()
    assert not cell.shift_hh.any()
    assert cell.innermost.bias_ih is None


def test_options_see_the_functions_of_activations_whichever_is_outside():
    x = torch.randn(2, 5, 3)
    torch.manual_seed(0)
    outside = LayerNorm(Activations(LSTMCell(3, 4), squash="relu"))
    torch.manual_seed(0)
    inside = Activations(LayerNorm(LSTMCell(3, 4)), squash="relu")

    assert outside.memory
    torch.testing.assert_close(unroll(outside, x)[0], unroll(inside, x)[0])
    dropped = RecurrentDropout(Activations(LSTMCell(3, 4), candidate="relu"), 0.5)
    assert not torch.equal(unroll(dropped, x)[0], unroll(dropped, x)[0])


def test_layer_norm_refuses_a_cell_that_projects_its_input_in_the_step():
    with pytest.raises(ConfigError, match="got Mogrifier inside"):
        LayerNorm(Zoneout(Mogrifier(LSTMCell(3, 4))))


@pytest.mark.parametrize("cell_cls", [LSTMCell, SLSTMCell, LRUCell])
def test_all_states_are_output_at_every_step(cell_cls):
    torch.manual_seed(0)
    cell, x = cell_cls(3, 4), torch.randn(2, 5, 3)
    state, steps = None, []
    for x_t in x.unbind(1):
        _, state = cell(x_t, state)
        steps.append(torch.cat(state, -1))

    y, (_, *final) = unroll(AllStates(cell), x)

    torch.testing.assert_close(y, torch.stack(steps, 1))
    torch.testing.assert_close(tuple(final), state)


def test_all_states_of_an_optioned_cell_obey_the_laws_of_recurrence():
    check_cell(lambda input_size: AllStates(Zoneout(LSTMCell(input_size, 4).eval(), p=0.1)).eval())


@pytest.mark.parametrize("option", INSIDE_ALL_STATES)
def test_an_option_around_all_states_is_told_to_go_inside(option):
    required = {ClipState: (1.0,), Dilated: (2,)}.get(option, ())

    with pytest.raises(ConfigError, match=rf"expected it outside: AllStates\({option.__name__}\("):
        option(AllStates(LSTMCell(3, 4)), *required)


def test_clipping_bounds_the_parts_of_the_state_it_names():
    cell = ClipState(LSTMCell(3, 4), 0.1, states=("c",))
    state = (torch.full((2, 4), 5.0), torch.full((2, 4), 5.0))

    _, (h, c) = cell(torch.randn(2, 3), state)

    assert c.abs().max() <= 0.1
    assert h.abs().max() > 0.1


@pytest.mark.parametrize("limit", [0, -1.0, True, "much"])
def test_clipping_refuses_a_bound_that_is_none(limit):
    with pytest.raises(ConfigError, match="above 0"):
        ClipState(LSTMCell(3, 4), limit)


def test_activations_by_name_replace_those_of_the_equation():
    cell = Activations(
        one_unit(LSTMCell, w=(0.5, -0.3, 0.8, 0.9), u=(0.7, 0.2, -0.6, 0.4)),
        gate="hardsigmoid",
        candidate="relu",
        squash="identity",
    )
    x, h, c = 2.0, -0.5, 0.4

    def hard(a):
        return min(max(a / 6 + 0.5, 0), 1)

    i, f, o = hard(0.5 * x + 0.7 * h), hard(-0.3 * x + 0.2 * h), hard(0.9 * x + 0.4 * h)
    c_after = f * c + i * max(0.8 * x - 0.6 * h, 0)
    assert step(cell, x, h, c) == pytest.approx((o * c_after, c_after), abs=1e-12)


def test_activations_refuse_unknown_names_and_cells_without_the_role():
    with pytest.raises(ConfigError, match="'swiish', expected one of"):
        Activations(LSTMCell(3, 4), candidate="swiish")
    with pytest.raises(ConfigError, match="GRUCell calls no squash"):
        Activations(GRUCell(3, 4), squash="relu")


def test_a_learned_state_starts_where_the_cell_does_and_learns():
    cell = LearnedState(LSTMCell(3, 4))
    x = torch.randn(2, 5, 3)

    before = unroll(cell, x)[0]
    torch.testing.assert_close(before, unroll(cell.cell, x)[0])
    unroll(cell, x)[0].sum().backward()

    assert cell.initial_h.grad.abs().sum() > 0
    assert cell.initial_c.grad.abs().sum() > 0


def test_a_learned_state_is_drawn_anew_with_its_cell():
    cell = LearnedState(LSTMCell(3, 4))
    with torch.no_grad():
        cell.initial_h.fill_(5)

    back = Bidirectional(cell).backward_layer.cell

    assert not back.initial_h.any()
    assert (cell.initial_h == 5).all()


def test_a_wrapper_around_no_cell_says_so():
    with pytest.raises(ConfigError, match="expected a cell"):
        Zoneout(LSTMCell, 0.1)
    with pytest.raises(ConfigError, match="expected a cell"):
        Wrapper(nn.Linear(3, 4))


# How parameters start


def test_rules_hold_for_each_gate_in_every_layer_and_direction():
    rules = {"weight_hh": {"f": "identity", "g": "orthogonal"}, "bias": {"f": 1.5}}
    make = partial(
        optioned, cell=partial(LSTMCell, forget_bias=0.0), options=[partial(initialize, **rules)]
    )

    net = DeepRNN(make, 3, 4, num_layers=3, bidirectional=True)

    cells = [module for module in net.modules() if isinstance(module, LSTMCell)]
    assert len(cells) == 6
    for cell in cells:
        weight = dict(zip(cell.recurrent, cell.weight_hh.chunk(4), strict=True))
        torch.testing.assert_close(weight["f"], torch.eye(4))
        torch.testing.assert_close(weight["g"] @ weight["g"].T, torch.eye(4))
        bias = cell.split(cell.bias_ih + cell.bias_hh)
        assert torch.equal(bias.f, torch.full((4,), 1.5))
        assert not torch.cat([bias.i, bias.g, bias.o]).any()


def test_a_rule_for_a_matrix_of_heads_holds_for_each_head():
    identity = initialize(SLSTMCell(3, 4, num_heads=2), weight_hh="identity")
    drawn = initialize(SLSTMCell(3, 4, num_heads=2), weight_hh={"g": "orthogonal"})

    for block in identity.weight_hh.chunk(4):
        assert torch.equal(block, torch.eye(4))
    turning = drawn.weight_hh.chunk(4)[drawn.recurrent.index("g")]
    torch.testing.assert_close(turning @ turning.T, torch.eye(4))


def test_a_rule_for_the_sum_of_biases_holds_where_there_is_one_alone():
    cell = initialize(MinGRUCell(3, 4), bias={"z": 1.5})

    assert (cell.split(cell.bias_ih).z == 1.5).all()


def test_an_output_that_a_clockwork_alone_keeps_has_no_start_to_learn():
    check_cell(lambda input_size: LearnedState(Clockwork(Clockwork(LRUCell(input_size, 4)))))

    assert hasattr(LearnedState(Clockwork(Mogrifier(LRUCell(3, 4)))), "initial_y")
    assert hasattr(LearnedState(Mogrifier(Clockwork(LRUCell(3, 4)))), "initial_y")


def test_rules_reach_every_gate_of_a_cell_that_keeps_matrices():
    bias, weights = {"f": 1.5, "o": -0.5, "k": 0.25}, {"q": "zeros"}
    cell = initialize(MLSTMCell(3, 4, num_heads=2), bias=bias, weight_qk=weights)
    heads = initialize(MLSTMCell(3, 4), bias=2.0, bias_heads={"i": -1.0})

    assert (cell.bias_of("f") == 1.5).all()
    assert cell.bias_of("i").any()
    assert cell.bias_ih.tolist() == [0.0] * 4 + [-0.5] * 4
    assert cell.bias_qk.tolist() == [0.0] * 4 + [0.25] * 4
    assert [part.any().item() for part in cell.weight_qk.chunk(2)] == [False, True]
    assert heads.bias_heads.tolist() == [-1.0, 2.0]
    assert torch.cat([heads.bias_ih, heads.bias_qk]).eq(2.0).all()


def test_a_rule_for_keys_reaches_those_of_all_writes_and_no_query():
    sizes = {"num_heads": 2, "key_size": 5, "writes": 3}
    cell = initialize(
        DeltaProductCell(3, 4, **sizes), weight_qk={"q": 0.0, "k": 1.0}, bias={"k": 2.0}
    )

    queries, *keys = cell.weight_qk.split(2 * 5)
    assert not queries.any()
    assert torch.cat(keys).eq(1).all()
    assert cell.bias_qk.tolist() == [0.0] * 10 + [2.0] * 30


def test_rules_hold_for_a_cell_that_is_drawn_anew():
    layer = Bidirectional(initialize(GRUCell(3, 4), weight_hh="identity"))

    blocks = layer.backward_layer.cell.weight_hh.chunk(3)

    assert all(torch.equal(block, torch.eye(4)) for block in blocks)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"weight_xx": "zeros"}, "no parameter 'weight_xx'"),
        ({"weight_hh": {"q": "zeros"}}, "no gate 'q'"),
        ({"weight_hh": "orthogonall"}, "'orthogonall', expected a number or one of"),
        ({"bias_ih": "orthogonal"}, "does not fit bias_ih"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_named(rules, message):
    with pytest.raises(ConfigError, match=message):
        initialize(LSTMCell(3, 4), **rules)


def test_rules_reach_what_is_learned_of_a_dropped_weight_and_no_rotation():
    dropped = initialize(weight_drop(GRUCell(3, 4), 0.5), weight_hh="identity").eval()

    assert torch.equal(dropped.weight_hh[:4], torch.eye(4))
    with pytest.raises(ConfigError, match="computed from other parameters"):
        initialize(orthogonal(GRUCell(3, 4)), weight_hh="identity")


def test_chrono_spreads_the_memory_over_the_steps_and_shuts_the_input_as_much():
    torch.manual_seed(0)
    cell = chrono(LSTMCell(3, 1000), max_steps=100)

    bias = cell.split(cell.bias_ih)

    steps = bias.f.exp()
    assert 1 <= steps.min() < 3
    assert 97 < steps.max() <= 99
    assert torch.equal(bias.i, -bias.f)


class Sevens:
    """Draws what a cell draws, and all biases anew."""

    def reset_parameters(self):
        super().reset_parameters()
        torch.nn.init.constant_(self.bias_ih, 7.0)


class MixedCell(Sevens, LSTMCell):
    pass


# LSTMCell draws after its base, and a mixin after both
@pytest.mark.parametrize("cell_cls", [GRUCell, LSTMCell, MixedCell])
def test_initialisers_run_again_whenever_parameters_are_drawn(cell_cls):
    cell = initialize(cell_cls(3, 4), bias=2.0)

    cell.reset_parameters()

    assert (cell.bias_ih == 2).all()
    assert unroll(cell, torch.randn(2, 5, 3))[0].shape == (2, 5, 4)


def test_initialisers_run_after_a_method_that_a_class_was_given_later():
    class LateCell(GRUCell):
        pass

    LateCell.reset_parameters = lambda self: torch.nn.init.constant_(self.bias_ih, 7.0)
    cell = initialize(LateCell(3, 4), bias=2.0)
    cell.reset_parameters()

    assert (cell.bias_ih == 2).all()


def test_an_initialiser_may_draw_the_parameters_itself():
    cell, calls = GRUCell(3, 4), []

    def draw(cell):
        calls.append(cell)
        cell.reset_parameters()

    register_initializer(cell, draw)
    cell.reset_parameters()

    assert calls == [cell]


def test_chrono_opens_the_gate_that_keeps_and_shuts_the_one_that_forgets():
    gru, coupled = chrono(GRUCell(3, 4), 50), chrono(CoupledLSTMCell(3, 4), 50)

    assert (gru.split(gru.bias_ih).z > 0).all()
    assert (coupled.split(coupled.bias_ih).i < 0).all()


def test_chrono_refuses_cells_that_keep_no_memory_by_gates():
    with pytest.raises(ConfigError, match="RNNCell has no biased gates"):
        chrono(RNNCell(3, 4), 10)
    with pytest.raises(ConfigError, match="has no biased gates"):
        chrono(LSTMCell(3, 4, bias=False), 10)
    with pytest.raises(ConfigError, match="at least 2"):
        chrono(LSTMCell(3, 4), 1)
