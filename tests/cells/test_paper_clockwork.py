"""Clockwork networks, and other cells by the clock, against their papers in plain floats."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch

from seqnets import Stream, unroll
from seqnets.cells import (
    Clockwork,
    ClockworkRNNCell,
    CoRNNCell,
    GRUCell,
    LearnedState,
    LSTMCell,
    RNNCell,
    Zoneout,
)
from seqnets.cells.redrawing import redraw
from seqnets.errors import ConfigError
from seqnets.layers import Bidirectional, Recurrent
from seqnets.testing import check_backend, check_cell, one_unit, step

from .plain import after, numbers, times, total

pytestmark = pytest.mark.usefixtures("plain_loop")

LEARNED = "parametrizations.weight_hh.original"
WRAPPED = {
    "LSTM": lambda *sizes: Clockwork(LSTMCell(*sizes)),
    "GRU": lambda *sizes: Clockwork(GRUCell(*sizes), periods=(3, 1)),
    "projected LSTM": lambda *sizes: Clockwork(LSTMCell(*sizes, proj_size=2)),
    "clockwork in clockwork": lambda *sizes: Clockwork(Clockwork(CoRNNCell(*sizes))),
    "clockwork network": lambda *sizes: Clockwork(ClockworkRNNCell(*sizes), periods=(2,)),
    "under options": lambda *sizes: LearnedState(Zoneout(Clockwork(GRUCell(*sizes)))).eval(),
}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def updates(cell, part, steps):
    """The steps at which each unit of a part of the state changes."""
    state, changed = cell.initial_state(1), []
    for _ in range(steps):
        before = state[part]
        _, state = cell(torch.randn(1, cell.input_size), state)
        changed.append((state[part] != before)[0])
    return [unit.nonzero().flatten().tolist() for unit in torch.stack(changed, 1)]


def test_clockwork_network_follows_its_paper():
    make = partial(ClockworkRNNCell, periods=(3,))
    cell = one_unit(make, w=(0.5,), b=(0.1,), d=(-0.3,), **{LEARNED: 0.7})
    h, phase = -1.5, 0.0

    for t, x in enumerate((2.0, -0.7, 0.4, 1.1, -0.2, 0.9, -1.3)):
        expected = math.tanh(0.5 * x + 0.1 + 0.7 * h - 0.3) if t % 3 == 0 else h

        h, phase = step(cell, x, h, phase)
        assert h == near(expected)


def test_a_unit_of_clockwork_network_is_due_at_every_step_unless_told():
    cell = one_unit(ClockworkRNNCell, w=(0.5,), **{LEARNED: 0.7})

    assert step(cell, 2.0, -1.5, 0.0) == near((math.tanh(0.5 * 2.0 - 0.7 * 1.5), 0.0))


def test_groups_read_from_groups_that_are_as_slow_or_slower():
    cell = ClockworkRNNCell(1, 3, periods=(1, 2, 4), dtype=torch.float64)
    learned = cell.parametrizations.weight_hh.original.tolist()
    w, h = numbers(cell)["weight_ih"], [0.3, -0.8, 0.5]

    read = [[u * (j >= i) for j, u in enumerate(row)] for i, row in enumerate(learned)]
    new = [math.tanh(a) for a in total(times(w, [2.0]), times(read, h))]

    assert after(cell, [2.0], h, [0.0, 0.0, 0.0])[0] == near(new)
    assert after(cell, [2.0], h, [0.0, 1.0, 0.0])[0] == near([new[0], h[1], new[2]])
    assert after(cell, [2.0], h, [0.0, 1.0, 2.0])[0] == near([new[0], *h[1:]])


def test_the_order_in_which_periods_are_given_is_that_of_the_units():
    cell = ClockworkRNNCell(1, 4, periods=(4, 1))

    assert cell.periods.tolist() == [4, 4, 1, 1]
    assert (cell.weight_hh != 0).tolist() == [[1, 1, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2


@pytest.mark.parametrize(
    ("hidden_size", "periods"),
    [
        (1, [1]),
        (2, [1, 4]),
        (3, [1, 2, 4]),
        (4, [1, 2, 4, 8]),
        (6, [1, 1, 2, 4, 4, 8]),
        (9, [1, 1, 1, 2, 2, 4, 4, 8, 8]),
    ],
)
def test_units_are_split_among_periods_as_evenly_as_they_can_be(hidden_size, periods):
    assert ClockworkRNNCell(3, hidden_size).periods.tolist() == periods
    assert Clockwork(GRUCell(3, hidden_size)).periods_of_phase_1.tolist() == periods


@pytest.mark.parametrize(
    "make", [ClockworkRNNCell, lambda *_, **o: Clockwork(LSTMCell(3, 6), **o)], ids=["RNN", "LSTM"]
)
def test_units_change_when_their_period_divides_the_step(make):
    cell = make(3, 6, periods=(1, 2, 5))
    due = [[t for t in range(13) if t % period == 0] for period in (1, 1, 2, 2, 5, 5)]

    for part in range(len(cell.states) - len(cell.clocks)):
        assert updates(cell, part, steps=13) == due


def test_a_unit_that_is_not_due_keeps_its_value_to_the_bit():
    cell = Clockwork(LSTMCell(3, 4), periods=(5,))
    _, (h, c, phase) = unroll(cell, torch.randn(2, 1, 3))

    _, (later_h, later_c, _) = unroll(cell, torch.randn(2, 4, 3), (h, c, phase))

    assert torch.equal(later_h, h)
    assert torch.equal(later_c, c)


def test_a_reset_starts_the_clock_again():
    cell = ClockworkRNNCell(3, 4)
    x = torch.randn(1, 9, 3)
    resets = torch.zeros(1, 9, dtype=torch.bool)
    resets[0, 3] = True

    y, _ = unroll(cell, x, resets=resets)

    torch.testing.assert_close(y[:, 3:], unroll(cell, x[:, 3:])[0])


def test_a_stream_keeps_the_time():
    layer = Recurrent(ClockworkRNNCell(3, 8))
    x = torch.randn(2, 20, 3)
    stream = Stream(layer, batch_size=2)

    stepped = torch.stack([stream(step).clone() for step in x.unbind(1)], 1)

    torch.testing.assert_close(stepped, layer(x)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_long_periods_are_counted_exactly_in_every_dtype(dtype):
    cell = ClockworkRNNCell(1, 3, periods=(255, 256, 7)).to(dtype)
    state = cell.initial_state(1)

    for t in range(1, 3 * 256):
        _, state = cell(torch.zeros(1, 1, dtype=dtype), state)
        assert state[1][0].tolist() == [t % 255, t % 256, t % 7]


@pytest.mark.parametrize("name", WRAPPED)
def test_a_cell_by_the_clock_obeys_the_laws_of_recurrence(name):
    check_cell(lambda input_size: WRAPPED[name](input_size, 4))


@pytest.mark.parametrize("name", ["LSTM", "clockwork network"])
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_cell_by_the_clock_runs_on_fast_backends(name, backend):
    check_backend(WRAPPED[name](3, 5), backend, steps=(1, 9))


def test_one_clock_serves_all_states_of_one_width():
    cell = Clockwork(LSTMCell(3, 4, proj_size=2))

    assert Clockwork(LSTMCell(3, 4)).states == ("h", "c", "phase_2")
    assert cell.states == ("h", "c", "phase_2", "phase_3")
    assert cell.clocks == ("phase_2", "phase_3")
    assert cell.state_sizes == (2, 4, 2, 4)
    assert [part.shape for part in cell.initial_state(5)] == [(5, 2), (5, 4), (5, 2), (5, 4)]


def test_period_one_changes_nothing():
    cell = RNNCell(3, 4)
    x = torch.randn(2, 6, 3)

    torch.testing.assert_close(unroll(Clockwork(cell, periods=(1,)), x)[0], unroll(cell, x)[0])


def test_copies_and_pickles_of_a_clockwork_network_keep_mask_and_periods():
    cell = ClockworkRNNCell(3, 8)
    x = torch.randn(2, 9, 3)

    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(unroll(twin, x)[0], unroll(cell, x)[0])
        assert torch.equal(twin.weight_hh == 0, cell.weight_hh == 0)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_cell_that_was_made_without_memory_has_its_periods_once_it_is_loaded(name):
    with torch.device("meta"):
        made = WRAPPED[name](3, 4)
    made.load_state_dict(WRAPPED[name](3, 4).state_dict(), assign=True)

    assert not any(tensor.is_meta for tensor in (*made.parameters(), *made.buffers()))


def test_reset_parameters_draws_another_masked_matrix():
    cell = ClockworkRNNCell(3, 8)
    before = cell.weight_hh

    redraw(cell)

    assert torch.equal(cell.weight_hh == 0, before == 0)
    assert not torch.equal(cell.weight_hh, before)
    assert Bidirectional(cell).backward_layer.cell.weight_hh.any()


@pytest.mark.parametrize(
    "make", [lambda p: ClockworkRNNCell(3, 4, periods=p), lambda p: Clockwork(GRUCell(3, 4), p)]
)
@pytest.mark.parametrize(
    ("periods", "message"),
    [
        (4, "periods are 4, expected a list of integers"),
        ((), "periods are empty, expected at least one"),
        ((1, 0), "a period is 0, expected an integer in 1..256"),
        ((-2,), "a period is -2, expected"),
        ((1.5,), "a period is 1.5, expected"),
        ((2.0,), "a period is 2.0, expected"),
        ((True,), "a period is True, expected"),
        ((257,), "a period is 257, expected"),
    ],
)
def test_invalid_periods_are_refused(make, periods, message):
    with pytest.raises(ConfigError, match=f"Clockwork(RNNCell)?: {message}"):
        make(periods)


def test_periods_that_are_not_the_cells_are_refused_on_loading():
    message = r"the saved periods are \[1, 8\], expected \[1, 2\]"
    for make in (ClockworkRNNCell, lambda *sizes, **own: Clockwork(GRUCell(*sizes), **own)):
        saved = make(3, 4, periods=(1, 8)).state_dict()
        with pytest.raises(ConfigError, match=message):
            make(3, 4, periods=(1, 2)).load_state_dict(saved)
        make(3, 4, periods=(1, 8)).load_state_dict(saved)
