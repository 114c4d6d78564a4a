"""Legendre memory units against their paper, in plain floats, and against what they hold."""

import math
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import LMUCell
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step

from .plain import after, each, numbers, times, total

ONE = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (-0.3,)}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def test_legendre_memory_unit_follows_its_paper():
    e_m = [0.1 * math.sin(k) for k in range(16)]
    v = [0.3 * math.cos(k) for k in range(16)]
    cell = one_unit(LMUCell, **ONE, weight_xu=0.9, weight_hu=-0.6, weight_mu=e_m, weight_mh=v)
    A, B = cell.A.tolist(), cell.B.tolist()
    h, m = state = -1.5, [0.2] * 16

    for x in ([2.0], [-0.7]):
        u = 0.9 * x[0] - 0.6 * h + times([e_m], m)[0]
        m = total(times(A, m), [b * u for b in B])
        h = math.tanh(0.5 * x[0] + 0.1 + 0.7 * h - 0.3 + times([v], m)[0])

        got = after(cell, x, [state[0]], state[1])
        assert got[0] == near([h])
        assert got[1] == near(m)
        state = h, m


def test_one_coefficient_is_an_average_that_fades_over_the_steps_it_spans():
    cell = one_unit(
        partial(LMUCell, order=1, theta=4.0),
        **ONE,
        weight_xu=1,
        weight_hu=0,
        weight_mu=0,
        weight_mh=1,
    )
    kept = math.exp(-1 / 4)

    m = step(cell, 2.0, -1.5, 0.6)[1]

    assert m == near(kept * 0.6 + (1 - kept) * 2.0)


def polynomial(order, r):
    """Legendre's polynomial of an order, moved to [0, 1], by its recurrence."""
    before, now, z = 1.0, 2 * r - 1, 2 * r - 1
    if order == 0:
        return before
    for n in range(1, order):
        before, now = now, ((2 * n + 1) * z * now - n * before) / (n + 1)
    return now


@pytest.mark.parametrize("back", [0, 7, 20, 40])
def test_the_memory_holds_the_signal_of_the_last_steps(back):
    cell = LMUCell(1, 4, order=10, theta=40.0, dtype=torch.float64)
    for weight in (cell.weight_hu, cell.weight_mu):
        torch.nn.init.zeros_(weight)
    torch.nn.init.ones_(cell.weight_xu)
    signal = [math.sin(t / 9) + 0.5 * math.cos(t / 15) for t in range(200)]

    _, (_, m) = unroll(cell, torch.tensor(signal, dtype=torch.float64).view(1, -1, 1))

    read = sum(p * polynomial(k, back / 40) for k, p in enumerate(m[0].tolist()))
    held = 0.5 * (signal[-1 - back] + signal[min(-back, -1)])  # constant during a step
    assert read == pytest.approx(held, abs=0.08)


def test_the_memory_has_a_width_of_its_own_and_one_signal_enters_it():
    cell = LMUCell(3, 2, order=4, theta=7.0, dtype=torch.float64)
    torch.nn.init.normal_(cell.weight_mu)
    p, x, h, m = numbers(cell), [0.7, -1.2, 0.4], [0.3, -0.8], [0.6, 0.1, -0.5, 0.9]

    (u,) = total(times(p["weight_xu"], x), times(p["weight_hu"], h), times(p["weight_mu"], m))
    m_next = total(times(p["A"], m), [b * u for b in p["B"]])
    a = total(times(p["weight_ih"], x), times(p["weight_hh"], h), times(p["weight_mh"], m_next))

    assert after(cell, x, h, m)[0] == near(each(math.tanh, a))
    assert after(cell, x, h, m)[1] == near(m_next)


def test_how_the_memory_moves_is_not_learned_and_is_saved():
    cell = LMUCell(3, 4)

    assert {"A", "B"} <= {*cell.state_dict()}
    assert not {"A", "B"} & {name for name, _ in cell.named_parameters()}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"order": 0}, "order is 0, expected at least 1"),
        ({"theta": 0.0}, "theta is 0.0, expected a finite number of steps above 0"),
        ({"theta": float("nan")}, "theta is nan, expected a finite number"),
        ({"theta": float("inf")}, "theta is inf, expected a finite number"),
        ({"theta": True}, "theta is True, expected a finite number"),
        ({"theta": "4"}, "theta is '4', expected a finite number"),
    ],
)
def test_invalid_spans_are_refused(option, message):
    with pytest.raises(ConfigError, match=f"LMUCell: {message}"):
        LMUCell(3, 4, **option)
