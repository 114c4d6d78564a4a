"""Oscillators, and units with time scales of their own, against their papers, in plain floats."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import unroll
from seqnets.cells import CoRNNCell, LEMCell, UnICORNNCell
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total

GIVEN = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (-0.3,), "weight_zh": -0.6}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def moved(x, y, z, dt, gamma, epsilon):
    """Position and velocity after one step."""
    force = math.tanh(0.7 * y - 0.6 * z + 0.5 * x + 0.1 - 0.3)
    velocity = z + dt * force - dt * gamma * y - dt * epsilon * z
    return y + dt * velocity, velocity


def test_cornn_follows_its_paper():
    cell = one_unit(CoRNNCell, **GIVEN)
    state = (-1.5, 0.9)

    for x in (2.0, -0.7, 0.4):
        expected = moved(x, *state, dt=0.042, gamma=2.7, epsilon=4.7)

        assert step(cell, x, *state) == near(expected)
        state = expected


def test_cornn_moves_by_the_numbers_given():
    options = {"dt": 0.2, "gamma": 1.3, "epsilon": 0.4}
    cell = one_unit(partial(CoRNNCell, **options), **GIVEN)

    assert step(cell, 2.0, -1.5, 0.9) == near(moved(2.0, -1.5, 0.9, **options))


def test_oscillators_are_coupled_by_positions_and_by_velocities():
    cell = CoRNNCell(1, 2, dt=0.2, gamma=1.3, epsilon=0.4, dtype=torch.float64)
    p, y, z = numbers(cell), [0.3, -0.8], [0.6, 0.1]

    products = times(p["weight_ih"], [2.0]), times(p["weight_hh"], y), times(p["weight_zh"], z)
    force = each(math.tanh, total(*products))
    velocity = each(lambda f, y, z: z + 0.2 * (f - 1.3 * y - 0.4 * z), force, y, z)

    assert after(cell, [2.0], y, z)[0] == near(each(lambda y, v: y + 0.2 * v, y, velocity))
    assert after(cell, [2.0], y, z)[1] == near(velocity)


def test_unicornn_follows_its_paper():
    cell = one_unit(UnICORNNCell, w=(0.5,), b=(0.1,), w_y=0.7, c=-0.4)
    dt = 0.126 * sigmoid(-0.4)
    y, z = state = -1.5, 0.9

    for x in (2.0, -0.7, 0.4):
        z = z - dt * (math.tanh(0.7 * y + 0.5 * x + 0.1) + 13.0 * y)
        y = y + dt * z

        assert step(cell, x, *state) == near((y, z))
        state = y, z


def test_oscillators_of_unicornn_are_independent():
    cell = UnICORNNCell(3, 4)
    x = torch.zeros(1, 2, 3)

    def moved(y, z):
        return unroll(cell, x, (y, z))[0][0, 1]

    for slopes in torch.autograd.functional.jacobian(moved, (torch.randn(1, 4),) * 2):
        assert not (slopes[:, 0] - slopes[:, 0].diag().diag()).any()
        assert slopes[:, 0].diag().all()


def test_a_step_of_unicornn_keeps_the_volume_of_its_states():
    cell = UnICORNNCell(3, 1, dtype=torch.float64)
    x = torch.randn(1, 9, 3, dtype=torch.float64)

    def moved(state):
        return torch.stack([p[0, 0] for p in unroll(cell, x, tuple(state.view(2, 1, 1)))[1]])

    start = torch.randn(2, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(moved, start)
    assert slopes.det().item() == pytest.approx(1.0, abs=1e-9)


def test_weights_of_each_unit_of_unicornn_start_as_in_its_paper():
    cell = UnICORNNCell(3, 500)

    assert 0 <= cell.w_y.min() < 0.1
    assert 0.9 < cell.w_y.max() <= 1
    assert 0.08 < cell.c.abs().max() <= 0.1


TIMED = {
    "w": (0.5, -0.3, 0.8, 0.9),
    "u": (0.7, 0.2, -0.6, 0.4),
    "b": (0.1, -0.4, 0.3, 0.6),
    "d": (0.05, 0.4, -0.2, -0.1),
}


@pytest.mark.parametrize("dt", [1.0, 0.3])
def test_long_expressive_memory_follows_its_paper(dt):
    cell = one_unit(LEMCell, **TIMED)
    cell.dt = dt
    y, z = -1.5, 0.9

    for x in (2.0, -0.7):
        r = dt * sigmoid(0.5 * x + 0.1 + 0.7 * y + 0.05)
        s = dt * sigmoid(-0.3 * x - 0.4 + 0.2 * y + 0.4)
        new_z = (1 - r) * z + r * math.tanh(0.8 * x + 0.3 - 0.6 * y - 0.2)
        new_y = (1 - s) * y + s * math.tanh(0.9 * x + 0.6 + 0.4 * new_z - 0.1)

        assert step(cell, x, y, z) == near((new_y, new_z))
        y, z = new_y, new_z


def test_the_output_of_long_expressive_memory_mixes_units_of_the_new_memory():
    cell = LEMCell(1, 2, dtype=torch.float64)
    perturb(cell)
    p, x, y, z = numbers(cell), [1.3], [0.3, -0.8], [0.6, 0.1]

    def entered(rows, h):
        w, u = times(p["weight_ih"], x)[rows], times(p["weight_hh"], h)[rows]
        return total(w, p["bias_ih"][rows], u, p["bias_hh"][rows])

    r, s = (each(sigmoid, entered(slice(k, k + 2), y)) for k in (0, 2))
    z = each(lambda r, z, a: z + r * (math.tanh(a) - z), r, z, entered(slice(4, 6), y))
    out = each(lambda s, y, a: y + s * (math.tanh(a) - y), s, y, entered(slice(6, 8), z))

    assert after(cell, x, y, [0.6, 0.1])[1] == near(z)
    assert after(cell, x, y, [0.6, 0.1])[0] == near(out)


@pytest.mark.parametrize(
    ("cell_cls", "option", "message"),
    [
        (CoRNNCell, {"dt": 0.0}, "dt is 0.0, expected a number above 0"),
        (CoRNNCell, {"gamma": -1.0}, "gamma is -1.0, expected a number of at least 0"),
        (CoRNNCell, {"epsilon": float("nan")}, "epsilon is nan, expected a number of at least 0"),
        (UnICORNNCell, {"dt": 0.0}, "dt is 0.0, expected a number above 0"),
        (UnICORNNCell, {"alpha": -1.0}, "alpha is -1.0, expected a number of at least 0"),
        (LEMCell, {"dt": -1.0}, "dt is -1.0, expected a number above 0"),
    ],
)
def test_invalid_options_of_oscillators_are_refused(cell_cls, option, message):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: {message}"):
        cell_cls(3, 4, **option)


def test_numbers_of_numpy_are_numbers():
    assert LEMCell(3, 4, dt=np.float32(0.5)).dt == 0.5
