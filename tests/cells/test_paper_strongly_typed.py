"""Strongly typed networks against their paper, in plain floats, and run in parallel over time."""

import math

import pytest
import torch

from seqnets.cells import TGRUCell, TLSTMCell, TRNNCell
from seqnets.testing import check_backend, one_unit, step

from .plain import after, each, numbers, sigmoid, times, total

XS = (2.0, -0.7, 0.4)
THREE = {"w": (0.5, -0.3, 0.8), "b": (0.1, -0.4, 0.3), "weight_before": (-0.9, 0.7, 0.2)}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def test_strongly_typed_network_follows_its_paper():
    cell = one_unit(TRNNCell, w=(0.5, -0.3), b=(0.1, -0.4))
    h = -1.5

    for x in XS:
        f = sigmoid(-0.3 * x - 0.4)
        expected = f * h + (1 - f) * (0.5 * x + 0.1)

        assert step(cell, x, h) == near(expected)
        h = expected


def gates(x, before):
    """Features, forget gate and output gate from two inputs."""
    return (
        0.5 * x + 0.1 - 0.9 * before,
        sigmoid(-0.3 * x - 0.4 + 0.7 * before),
        math.tanh(0.8 * x + 0.3 + 0.2 * before),
    )


def test_strongly_typed_gated_unit_follows_its_paper():
    cell = one_unit(TGRUCell, **THREE)
    h, before, state = -1.5, 0.0, (-1.5, 0.0, 0.0, 0.0)

    for x in XS:
        z, f, o = gates(x, before)
        h, before = f * h + z * o, x
        state = step(cell, x, *state)

        assert state[0] == near(h)


def test_strongly_typed_lstm_follows_its_paper():
    cell = one_unit(TLSTMCell, **THREE)
    c, before, state = 0.9, 0.0, (-1.5, 0.9, 0.0, 0.0, 0.0)

    for x in XS:
        z, f, o = gates(x, before)
        c, before = f * c + (1 - f) * z, x
        state = step(cell, x, *state)

        assert state[:2] == near((c * o, c))


def test_the_gates_of_a_strongly_typed_lstm_see_all_of_the_input_before():
    cell = TLSTMCell(3, 2, dtype=torch.float64)
    p, x, before = numbers(cell), [0.7, -1.2, 0.4], [0.3, 0.5, -0.6]

    state = after(cell, before, *[[0.0, 0.0]] * 5)
    c = state[1]
    z, f, o = (
        total(times(p["weight_ih"][k : k + 2], x), times(p["weight_before"][k : k + 2], before))
        for k in (0, 2, 4)
    )
    c = each(lambda z, f, c: sigmoid(f) * c + (1 - sigmoid(f)) * z, z, f, c)

    assert after(cell, x, *state)[0] == near(each(lambda c, o: c * math.tanh(o), c, o))


@pytest.mark.parametrize("backend", ["scan", "eager"])
@pytest.mark.parametrize("cell_cls", [TRNNCell, TGRUCell, TLSTMCell])
def test_they_are_linear_in_their_state_and_run_in_parallel_over_time(cell_cls, backend):
    assert check_backend(cell_cls(3, 5), backend, steps=(1, 6), dtypes=(torch.float64,)) == {}
