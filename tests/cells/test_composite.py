"""Cells made of cells."""

import copy
import math
from functools import partial

import pytest
import torch

import seqnets
from seqnets import DeepRNN, Recurrent, unroll
from seqnets.cells import (
    DeepTransition,
    Dilated,
    GRUCell,
    InputDropout,
    LayerNorm,
    LearnedState,
    LSTMCell,
    Mogrifier,
    OriginalGRUCell,
    RNNCell,
    RRUCell,
    Zoneout,
    optioned,
)
from seqnets.errors import ConfigError, ShapeError
from seqnets.testing import check_backend, check_cell, check_layer, one_unit
from tests.slow import mostly_slow

B, T, I, H = 3, 7, 3, 4
COMPOSITES = {
    "mogrifier": Mogrifier,
    "mogrifier of one round": partial(Mogrifier, rounds=1),
    "mogrifier of four rounds": partial(Mogrifier, rounds=4),
    "deep transition": partial(DeepTransition, depth=3),
    "dilated": partial(Dilated, dilation=3),
    "dilated mogrifier": lambda cell: Dilated(Mogrifier(cell, 3), 2),
    "mogrified deep transition": lambda cell: Mogrifier(DeepTransition(cell), 2),
}
QUICK = ("mogrifier", "deep transition", "dilated")
CELLS = (LSTMCell, GRUCell, OriginalGRUCell)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


@torch.no_grad()
def given(cell, **numbers):
    """The cell with one number in each of some parameters."""
    for name, number in numbers.items():
        cell.get_parameter(name).fill_(number)
    return cell


@torch.no_grad()
def stepped(cell, x, *state):
    rows = [torch.tensor([[number]], dtype=torch.float64) for number in (x, *state)]
    return tuple(part.item() for part in cell(rows[0], tuple(rows[1:]))[1])


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


@pytest.mark.parametrize(("cell_cls", "bias"), [(LSTMCell, True), (OriginalGRUCell, False)])
@pytest.mark.parametrize("name", COMPOSITES)
def test_it_obeys_the_laws_of_recurrence(name, cell_cls, bias):
    check_cell(lambda input_size: COMPOSITES[name](cell_cls(input_size, H, bias=bias)))


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("name", QUICK)
def test_layers_of_it_obey_the_laws_of_recurrence(name):
    make = partial(optioned, cell=GRUCell, options=[COMPOSITES[name]])

    check_layer(DeepRNN(make, I, H, 2, connection="residual"))


@pytest.mark.parametrize("name", mostly_slow(COMPOSITES, QUICK))
def test_it_runs_inside_the_loops_and_is_chosen_there(name):
    cell = COMPOSITES[name](LSTMCell(3, 17))

    assert seqnets.explain(cell, torch.zeros(B, T, 3)).chosen == "c"
    assert check_backend(cell, "c", steps=(1, 5), dtypes=(torch.float64,)) == {}
    assert check_backend(cell, "eager", steps=(1, 5), dtypes=(torch.float64,)) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("unoptimised")
@pytest.mark.parametrize("sizes", [(3, 17), (3, 1), (5, 5)])
@pytest.mark.parametrize("cell_cls", CELLS)
@pytest.mark.parametrize("name", COMPOSITES)
def test_it_runs_inside_the_loops_around_any_cell(name, cell_cls, sizes):
    cell = COMPOSITES[name](cell_cls(*sizes))

    assert check_backend(cell, "c", steps=(1, 2, 63)) == {}


@pytest.mark.parametrize("wrap", [Mogrifier, partial(Dilated, dilation=2)])
def test_it_runs_inside_the_loops_around_a_projection(wrap):
    cell = wrap(LSTMCell(3, 9, proj_size=4))

    assert check_backend(cell, "c", steps=(1, 4), dtypes=(torch.float64,)) == {}


def test_mogrifier_follows_its_paper():
    cell = Mogrifier(one_unit(LSTMCell, w=W, u=U, b=BIAS, d=D), rounds=5)
    given(cell, q_1=0.7, r_2=-0.4, q_3=1.2, r_4=0.3, q_5=-0.8)
    x, h, c = 2.0, -0.7, 0.4

    after = stepped(cell, x, h, c)

    x = 2 * sigmoid(0.7 * h) * x
    h = 2 * sigmoid(-0.4 * x) * h
    x = 2 * sigmoid(1.2 * h) * x
    h = 2 * sigmoid(0.3 * x) * h
    x = 2 * sigmoid(-0.8 * h) * x
    i, f, g, o = (w * x + u * h + b + d for w, u, b, d in zip(W, U, BIAS, D, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
    assert after == near((sigmoid(o) * math.tanh(c), c))


def test_each_unit_of_a_mogrifier_is_gated_by_all_of_the_other_side():
    cell = Mogrifier(RNNCell(2, 3, dtype=torch.float64), rounds=2)
    x, h = torch.randn(1, 2, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)

    gated = [
        2 * sigmoid(sum(q * p for q, p in zip(row, h[0].tolist(), strict=True)))
        for row in cell.q_1.tolist()
    ]
    x_after = [g * v for g, v in zip(gated, x[0].tolist(), strict=True)]
    gated = [
        2 * sigmoid(sum(r * p for r, p in zip(row, x_after, strict=True)))
        for row in cell.r_2.tolist()
    ]
    h_after = [g * v for g, v in zip(gated, h[0].tolist(), strict=True)]
    expected = cell.cell(torch.tensor([x_after]).double(), (torch.tensor([h_after]).double(),))

    torch.testing.assert_close(cell(x, (h,)), expected, rtol=0, atol=1e-6)


def test_a_mogrifier_without_rounds_is_its_cell():
    cell, x = LSTMCell(I, H), torch.randn(B, T, I)

    torch.testing.assert_close(unroll(Mogrifier(cell, 0), x), unroll(cell, x))


def test_deep_transition_follows_its_paper():
    first = one_unit(RNNCell, w=(0.5,), u=(0.7,), b=(0.1,), d=(-0.3,))
    others = (
        one_unit(RNNCell, w=(9.0,), u=(-0.6,), b=(0.2,), d=(0.4,)),
        one_unit(RNNCell, w=(9.0,), u=(1.1,), b=(-0.5,), d=(0.3,)),
    )
    x, h = 2.0, -1.5

    h1 = math.tanh(0.5 * x + 0.1 + 0.7 * h - 0.3)
    h2 = math.tanh(0.2 - 0.6 * h1 + 0.4)
    h3 = math.tanh(-0.5 + 1.1 * h2 + 0.3)

    assert stepped(DeepTransition(first, *others), x, h) == near((h3,))


def test_later_transitions_have_no_weights_for_an_input():
    cell = DeepTransition(GRUCell(I, H), depth=3)
    names = dict(cell.named_parameters())

    assert "cell.weight_ih" in names
    assert {n for n in names if n.startswith("cell_1.")} == {
        "cell_1.weight_hh", "cell_1.bias_ih", "cell_1.bias_hh",
    }  # fmt: skip
    assert not torch.equal(cell.cell_1.weight_hh, cell.cell_2.weight_hh)


@pytest.mark.parametrize("bias", [True, False])
def test_a_later_transition_may_have_a_layer_of_another_width_within(bias):
    make = partial(RRUCell, I, H, inner_size=9, bias=bias)
    cell, later = DeepTransition(make()), make()
    cell.reset_parameters()
    later.load_state_dict(cell.cell_1.state_dict(), strict=False)
    torch.nn.init.zeros_(later.weight_ih)
    x = torch.randn(B, I)

    torch.testing.assert_close(cell(x), later(x, cell.cell(x)[1]))


def test_transitions_of_several_kinds_go_together():
    check_cell(
        lambda input_size: DeepTransition(LSTMCell(input_size, H), LSTMCell(1, H, forget_bias=2.0))
    )
    check_cell(
        lambda input_size: DeepTransition(
            GRUCell(input_size, H), RNNCell(1, H), OriginalGRUCell(2, H)
        )
    )


@pytest.mark.parametrize("name", COMPOSITES)
def test_reset_parameters_draws_new_parameters(name):
    cell = COMPOSITES[name](LSTMCell(I, H))
    before = copy.deepcopy(cell.state_dict())

    cell.reset_parameters()

    after = cell.state_dict()
    assert after.keys() == before.keys()
    assert not [n for n, p in after.items() if n.count("weight") and torch.equal(p, before[n])]
    seqnets.Bidirectional(cell, backend="reference")(torch.randn(B, T, I))


@pytest.mark.parametrize("d", [1, 2, 3, 9])
def test_dilation_runs_as_many_sequences_interleaved(d):
    cell, x = LSTMCell(I, H, dtype=torch.float64), torch.randn(B, T, I, dtype=torch.float64)

    y, state = unroll(Dilated(cell, d), x)

    for k in range(min(d, T)):
        torch.testing.assert_close(y[:, k::d], unroll(cell, x[:, k::d])[0])
    newest_first = [unroll(cell, x[:, (T - 1 - k) % d : T - k : d])[1] for k in range(min(d, T))]
    assert len(state) == 2 * d
    torch.testing.assert_close(state[: 2 * min(d, T)], tuple(p for s in newest_first for p in s))
    assert not any(part.any() for part in state[2 * T :])


def test_every_delayed_state_starts_where_the_cell_does():
    cell = Dilated(LearnedState(GRUCell(I, H)), 3)
    torch.nn.init.normal_(cell.cell.initial_h)

    assert all(torch.equal(part[0], cell.cell.initial_h) for part in cell.initial_state(2))


def test_options_inside_a_dilation_see_the_state_it_goes_on_from():
    cell = Dilated(Zoneout(GRUCell(I, H), 0.4), 2).eval()
    x = torch.randn(B, T, I)

    y, _ = unroll(cell, x)

    torch.testing.assert_close(y[:, ::2], unroll(cell.cell, x[:, ::2])[0])


def test_options_around_a_dilation_leave_the_delayed_states_alone():
    cell = Dilated(LSTMCell(I, H), 2)

    assert cell.states == ("h", "c", "h_1", "c_1")
    assert Zoneout(cell, 0.3).probabilities == (0.3, 0.3, 0.0, 0.0)


def test_states_of_a_dilation_within_another_have_names_of_their_own():
    cell, x = Dilated(Dilated(GRUCell(I, H), 2), 3), torch.randn(B, T, I)

    assert cell.states == ("h", "h_1", "h_2", "h_1_2", "h_3", "h_1_3")
    torch.testing.assert_close(unroll(cell, x)[0], unroll(Dilated(cell.cell.cell, 6), x)[0])


def test_options_go_around_and_inside_a_mogrifier():
    check_cell(
        lambda input_size: Zoneout(Mogrifier(LayerNorm(LSTMCell(input_size, H))), 0.2).eval()
    )
    cell = InputDropout(Zoneout(Mogrifier(GRUCell(3, 17)), 0.2), 0.2)
    assert check_backend(cell, "c", steps=(1, 4), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize("name", mostly_slow(COMPOSITES, QUICK))
def test_a_stream_takes_the_same_steps(name):
    layer, x = Recurrent(COMPOSITES[name](LSTMCell(I, H))), torch.randn(B, T, I)
    stream = seqnets.Stream(layer, B)

    y = torch.stack([stream(x[:, t]).clone() for t in range(T)], 1)

    assert stream.backend == "c"
    torch.testing.assert_close(y, layer(x)[0], rtol=1e-5, atol=1e-6)


W, U = (0.5, -0.3, 0.8, 0.9), (0.7, 0.2, -0.6, 0.4)
BIAS, D = (0.1, -0.4, 0.3, 0.6), (0.05, 0.4, -0.2, -0.1)


class Squared(GRUCell):
    square = True


class Projecting(GRUCell):
    def project(self, x):
        return super().project(2 * x)


def twice_the_same():
    cell = GRUCell(I, H)
    return DeepTransition(cell, cell)


def spoilt(cell):
    cell.cell_1.weight_hh = torch.nn.Parameter(torch.zeros(2, 2))
    return cell


WRONG = {
    "rounds": (
        lambda: Mogrifier(GRUCell(I, H), -1),
        "rounds is -1, expected a whole",
    ),
    "part of a round": (lambda: Mogrifier(GRUCell(I, H), 2.0), r"rounds is 2\.0"),
    "dilation": (
        lambda: Dilated(GRUCell(I, H), 0),
        "dilation is 0, expected a whole",
    ),
    "part of a step": (lambda: Dilated(GRUCell(I, H), 1.5), r"dilation is 1\.5"),
    "truth": (lambda: Dilated(GRUCell(I, H), True), "dilation is True"),
    "depth": (lambda: DeepTransition(GRUCell(I, H), depth=0), "depth is 0"),
    "states": (
        lambda: DeepTransition(LSTMCell(I, H), GRUCell(I, H)),
        "cell 1, GRUCell, is {'h': 4}, expected {'h': 4, 'c': 4}",
    ),
    "sizes": (lambda: DeepTransition(GRUCell(I, H), GRUCell(I, 5)), "is {'h': 5}, expected"),
    "a wrapper": (
        lambda: DeepTransition(GRUCell(I, H), Zoneout(GRUCell(I, H))),
        "cell 1 is Zoneout, expected a GatedCell",
    ),
    "a copy of a wrapper": (lambda: DeepTransition(Zoneout(GRUCell(I, H))), "cell 1 is Zoneout"),
    "a projection": (lambda: DeepTransition(GRUCell(I, H), Projecting(I, H)), "by weight_ih alone"),
    "the input itself": (lambda: DeepTransition(GRUCell(I, H), Squared(H, H)), "input itself"),
    "the same cell": (twice_the_same, "is cell 0 too"),
    "no cell": (lambda: Mogrifier(torch.nn.Linear(I, H)), "cell is Linear"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_options_are_refused(case):
    make, said = WRONG[case]

    with pytest.raises(ConfigError, match=said):
        make()


def test_a_parameter_of_a_wrong_shape_is_refused_in_every_transition():
    cell = spoilt(DeepTransition(GRUCell(I, H)))

    with pytest.raises(ShapeError, match=r"weight_hh has shape \(2, 2\)"):
        unroll(cell, torch.zeros(B, T, I))
