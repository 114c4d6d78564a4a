"""``watch``: the inside of a cell at every step."""

from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import Activations, AllStates, GRUCell, LSTMCell, RNNCell, Zoneout, optioned
from seqnets.layers import Recurrent, watch
from tests.cells.final import FINAL_CELLS, sized

B, T, I, H = 3, 5, 2, 4
LENGTHS = torch.tensor([5, 0, 3])


@pytest.fixture
def x():
    return torch.randn(B, T, I, dtype=torch.float64)


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_states_are_those_of_the_steps_one_by_one(cell_cls):
    cell = sized(cell_cls, 2, 4)
    x = torch.randn(B, 3, cell.input_size)

    states, _ = watch(cell, x)

    after, expected = None, []
    for x_t in x.unbind(1):
        _, after = Recurrent(cell).step(x_t, after)
        expected.append(after)
    assert tuple(states) == cell.states
    for part, steps in zip(states.values(), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(part, torch.stack(steps, 1))


def test_gates_come_in_the_order_of_the_equation(x):
    cell = LSTMCell(I, H, dtype=torch.float64)

    states, calls = watch(cell, x)

    i, f, o = calls["gate"]
    (g,) = calls["candidate"]
    (shown,) = calls["squash"]
    h, c = states["h"], states["c"]
    torch.testing.assert_close(c[:, 1:], f[:, 1:] * c[:, :-1] + i[:, 1:] * g[:, 1:])
    torch.testing.assert_close(h, o * shown)
    torch.testing.assert_close(shown, torch.tanh(c))


def test_a_cell_that_outputs_all_its_states_is_watched(x):
    cell = LSTMCell(I, H, dtype=torch.float64)

    states, calls = watch(AllStates(cell), x)

    expected = watch(cell, x)
    torch.testing.assert_close(states.pop("all"), torch.cat(list(expected.states.values()), -1))
    torch.testing.assert_close((states, calls), tuple(expected))


def test_functions_that_an_equation_does_not_use_are_left_out(x):
    assert list(watch(RNNCell(I, H, dtype=torch.float64), x).calls) == ["candidate"]


@pytest.mark.parametrize("reverse", [False, True])
def test_rows_end_and_begin_again_as_in_a_layer(reverse, x):
    cell, resets = GRUCell(I, H, dtype=torch.float64), torch.rand(B, T) < 0.5
    given = (torch.randn(B, H, dtype=torch.float64),)

    states, calls = watch(cell, x, given, LENGTHS, resets, reverse=reverse)

    y, _ = unroll(cell, x, given, LENGTHS, resets, reverse=reverse)
    torch.testing.assert_close(states["h"], y)
    assert all((part[1] == 0).all() and (part[2, 3:] == 0).all() for part in calls["gate"])


def test_options_are_seen_as_they_act(x):
    options = [partial(Activations, gate="hardsigmoid"), partial(Zoneout, p=0.5)]
    cell = optioned(I, H, cell=GRUCell, options=options, dtype=torch.float64).eval()

    states, calls = watch(cell, x * 100)

    torch.testing.assert_close(states["h"], unroll(cell, x * 100)[0])
    assert any((gate == 1).any() for gate in calls["gate"])


def test_what_is_seen_can_be_differentiated(x):
    cell = LSTMCell(I, H, dtype=torch.float64)

    loss = watch(cell, x).states["c"].square().sum()

    assert torch.autograd.grad(loss, cell.weight_hh)[0].abs().sum() > 0


def test_no_steps_have_states_of_no_steps(x):
    states, calls = watch(LSTMCell(I, H, dtype=torch.float64), x[:, :0])

    assert states["c"].shape == (B, 0, H)
    assert calls == {}
