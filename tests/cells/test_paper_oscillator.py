"""Coupled oscillators against their paper, in plain floats."""

import math
from functools import partial

import pytest
import torch

from seqnets.cells import CoRNNCell
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step

from .plain import after, each, numbers, times, total

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


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"dt": 0.0}, "dt is 0.0, expected a time above 0"),
        ({"gamma": -1.0}, "gamma is -1.0, expected at least 0"),
        ({"epsilon": float("nan")}, "epsilon is nan, expected at least 0"),
    ],
)
def test_invalid_options_of_oscillators_are_refused(option, message):
    with pytest.raises(ConfigError, match=f"CoRNNCell: {message}"):
        CoRNNCell(3, 4, **option)
