"""Simple gated units against their paper, in plain floats."""

import math

import pytest
import torch

from seqnets.cells import DSGUCell, SGUCell
from seqnets.testing import check_backend, one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total

NUMBERS = {"w": (0.5, -0.3), "u": (0.7, 0.2), "b": (0.1, -0.4), "d": (0.05, 0.4)}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def hard_sigmoid(a):
    return min(max(0.2 * a + 0.5, 0.0), 1.0)


@pytest.mark.parametrize("h", [-1.5, 0.0])
def test_simple_gated_unit_follows_its_paper(h):
    cell = one_unit(SGUCell, **NUMBERS)

    for x in (2.0, -0.7, 20.0):
        g = math.tanh(0.7 * ((0.5 * x + 0.1) * h) + 0.05)
        z = hard_sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        expected = (1 - z) * h + z * math.log(1 + math.exp(g * h))

        assert step(cell, x, h) == near(expected)
        h = expected


def test_deep_simple_gated_unit_follows_its_paper():
    cell = one_unit(DSGUCell, **NUMBERS, weight_n=(-0.9,))
    h = -1.5

    for x in (2.0, -0.7):
        g = math.tanh(0.7 * ((0.5 * x + 0.1) * h) + 0.05)
        z = hard_sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        expected = (1 - z) * h + z * sigmoid(-0.9 * (g * h))

        assert step(cell, x, h) == near(expected)
        h = expected


def test_both_layers_of_a_deep_simple_gated_unit_mix_units():
    cell = DSGUCell(1, 2, dtype=torch.float64)
    perturb(cell)
    matrix, x, h = numbers(cell), [1.3], [0.3, -0.8]

    w = total(times(matrix["weight_ih"], x), matrix["bias_ih"])
    entering = [w[k] * h[k] for k in range(2)]
    g = total(times(matrix["weight_hh"][:2], entering), matrix["bias_hh"][:2])
    gated = [math.tanh(g[k]) * h[k] for k in range(2)]
    n = each(sigmoid, times(matrix["weight_n"], gated))
    u = total(times(matrix["weight_hh"][2:], h), matrix["bias_hh"][2:])
    z = [hard_sigmoid(w[2 + k] + u[k]) for k in range(2)]

    assert after(cell, x, h)[0] == near([(1 - z[k]) * h[k] + z[k] * n[k] for k in range(2)])


@pytest.mark.parametrize("cell_cls", [SGUCell, DSGUCell])
def test_simple_gated_units_run_in_the_loops(cell_cls):
    assert check_backend(cell_cls(3, 4), "c", steps=(1, 5)) == {}
