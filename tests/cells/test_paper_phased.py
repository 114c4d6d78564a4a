"""The phased LSTM against its paper, in plain floats."""

import math
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import LearnedState, PeepholeLSTMCell, PhasedLSTMCell, Zoneout
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit, step

from .plain import sigmoid

W, U = (0.5, -0.3, 0.8, 0.9), (0.7, 0.2, -0.6, 0.4)
B, D = (0.1, -0.4, 0.3, 0.6), (0.05, 0.4, -0.2, -0.1)
PEEPHOLES = {"p_i": 0.35, "p_f": -0.25, "p_o": 0.65}


def proposal(x, h, c):
    """A step of the LSTM with peepholes."""
    a = [W[k] * x + B[k] + U[k] * h + D[k] for k in range(4)]
    i, f = sigmoid(a[0] + 0.35 * c), sigmoid(a[1] - 0.25 * c)
    memory = f * c + i * math.tanh(a[2])
    return sigmoid(a[3] + 0.65 * memory) * math.tanh(memory), memory


@pytest.mark.parametrize(
    ("time", "phase"), [(3.0, 0.12), (4.0, 0.32), (6.0, 0.72), (-1.0, 0.32), (1e3 + 3, 0.12)]
)
def test_phased_lstm_follows_its_paper(time, phase):
    cell = one_unit(PhasedLSTMCell, W, U, B, D, **PEEPHOLES, log_tau=math.log(5.0), shift=2.4)
    cell.open_ratio, cell.leak = 0.4, 0.001
    x, h, c = 2.0, -1.5, 0.9

    if phase < 0.4 / 2:
        k = 2 * phase / 0.4
    elif phase < 0.4:
        k = 2 - 2 * phase / 0.4
    else:
        k = 0.001 * phase
    new_h, new_c = proposal(x, h, c)
    expected = k * new_h + (1 - k) * h, k * new_c + (1 - k) * c, time + 1

    assert phase == pytest.approx((time - 2.4) % 5.0 / 5.0)
    assert step(cell, x, h, c, time) == pytest.approx(expected, abs=1e-9)


def test_a_time_gate_is_fully_open_in_the_middle_of_its_open_phase():
    cell = one_unit(PhasedLSTMCell, W, U, B, D, **PEEPHOLES, log_tau=math.log(8.0), shift=0.0)
    cell.open_ratio = 0.5

    assert step(cell, 2.0, -1.5, 0.9, 2.0)[:2] == pytest.approx(proposal(2.0, -1.5, 0.9))


def test_a_closed_unit_leaks_in_training_and_keeps_its_state_in_evaluation():
    cell = one_unit(PhasedLSTMCell, W, U, B, D, **PEEPHOLES, log_tau=math.log(8.0), shift=0.0)

    assert step(cell, 2.0, -1.5, 0.9, 4.0) != (-1.5, 0.9, 5.0)
    assert step(cell.eval(), 2.0, -1.5, 0.9, 4.0) == (-1.5, 0.9, 5.0)


def test_the_loops_distinguish_training_from_evaluation():
    cell, x = PhasedLSTMCell(3, 5), torch.randn(2, 6, 3)

    for mode in (True, False, True):
        cell.train(mode)
        expected = unroll(cell, x, backend="reference")[0]
        torch.testing.assert_close(unroll(cell, x)[0], expected)


def test_time_stamps_replace_the_step_count():
    counting, timed = PhasedLSTMCell(3, 5), PhasedLSTMCell(4, 5, timed=True)
    timed.load_state_dict(counting.state_dict())
    x = torch.randn(2, 6, 3)
    stamps = torch.arange(6.0).view(1, 6, 1).expand(2, 6, 1)

    y, (h, c) = unroll(timed, torch.cat([x, stamps], -1))

    expected, (h_counting, c_counting, steps) = unroll(counting, x)
    torch.testing.assert_close((y, h, c), (expected, h_counting, c_counting))
    assert (steps == 6).all()


def test_time_stamps_affect_only_the_time_gate():
    cell = PhasedLSTMCell(4, 5, timed=True)

    assert cell.weight_ih.shape == (20, 3)
    assert cell.states == ("h", "c")


def test_a_cell_with_time_stamps_obeys_the_laws_and_runs_compiled():
    check_cell(partial(PhasedLSTMCell, hidden_size=4, timed=True))
    check_backend(PhasedLSTMCell(3, 5, timed=True), "eager", steps=(1, 5))


def test_options_do_not_change_the_step_count():
    cell = LearnedState(Zoneout(PhasedLSTMCell(3, 4), p=0.5))

    steps = unroll(cell, torch.randn(2, 7, 3))[1][2]

    assert (steps == 7).all()
    assert not hasattr(cell, "initial_t")


def test_periods_start_between_their_bounds_and_shifts_within_a_period():
    cell = PhasedLSTMCell(3, 500, periods=(2.0, 50.0))
    tau = cell.log_tau.exp()

    assert 2.0 <= tau.min() < 2.2
    assert 45.0 < tau.max() <= 50.001
    assert (cell.shift >= 0).all()
    assert (cell.shift <= tau).all()


def test_a_phased_lstm_proposes_the_step_of_its_base_cell():
    cell, inner = PhasedLSTMCell(3, 4), PeepholeLSTMCell(3, 4)
    inner.load_state_dict(cell.state_dict(), strict=False)
    torch.nn.init.zeros_(cell.log_tau)
    torch.nn.init.constant_(cell.shift, -0.025)  # at step 0 of period 1 the gate is wide open
    x = torch.randn(2, 3)

    torch.testing.assert_close(cell(x)[1][:2], inner(x)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"open_ratio": 0.0}, "open_ratio is 0.0, expected a number above 0 and below 1"),
        ({"open_ratio": 1.0}, "open_ratio is 1.0, expected a number above 0 and below 1"),
        ({"leak": -0.1}, "leak is -0.1, expected a number of at least 0 and below 1"),
        ({"periods": (0.0, 5.0)}, r"periods are \(0.0, 5.0\), expected the shortest above 0"),
        ({"periods": (6.0, 5.0)}, r"periods are \(6.0, 5.0\), expected the shortest above 0"),
        ({"proj_size": 2}, "proj_size is 2, expected 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=f"PhasedLSTMCell: {message}"):
        PhasedLSTMCell(3, 4, **options)


def test_a_time_stamp_cannot_be_the_only_feature():
    with pytest.raises(ConfigError, match="input_size is 1, expected at least 2 with timed=True"):
        PhasedLSTMCell(1, 4, timed=True)
