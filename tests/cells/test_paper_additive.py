"""Cells that write values of the input alone against their papers, in plain floats."""

import math
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    Activations,
    ATRCell,
    CFNCell,
    LightRUCell,
    MinimalRNNCell,
    RANCell,
    STARCell,
    chrono,
    initialize,
)
from seqnets.testing import one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total

XS = (2.0, -0.7)
ONE_AND_ONE = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (0.05,)}
TWO_AND_ONE = {"w": (0.5, -0.3), "u": (0.7,), "b": (0.1, -0.4), "d": (0.05,)}
THREE_AND_TWO = {
    "w": (0.5, -0.3, 0.8),
    "u": (0.7, 0.2),
    "b": (0.1, -0.4, 0.3),
    "d": (0.05, 0.4),
}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


@pytest.mark.parametrize("squash", ["tanh", "identity"])
def test_recurrent_additive_network_follows_its_paper(squash):
    cell = one_unit(RANCell, **THREE_AND_TWO)
    shown = math.tanh if squash == "tanh" else float
    h, c = -1.5, 0.9

    for x in XS:
        i = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        f = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        memory = i * (0.8 * x + 0.3) + f * c
        expected = shown(memory), memory

        assert step(Activations(cell, squash=squash), x, h, c) == near(expected)
        h, c = expected


def test_the_memory_of_an_additive_network_is_a_weighted_sum_of_its_inputs():
    cell = partial(RANCell, 1, 2, bias=False, dtype=torch.float64)()
    x = torch.randn(1, 5, 1, dtype=torch.float64)
    gated = cell.bind({**cell.tensors(), "weight_hh": torch.zeros_like(cell.weight_hh)})

    _, (_, c) = unroll(gated, x)

    w_i, w_f, w_g = (w.flatten() for w in cell.weight_ih.chunk(3))
    share, expected = torch.ones(2, dtype=torch.float64), 0.0
    for x_t in reversed(x[0]):
        expected = expected + share * torch.sigmoid(w_i * x_t) * (w_g * x_t)
        share = share * torch.sigmoid(w_f * x_t)
    torch.testing.assert_close(c[0], expected)


def test_twin_gated_network_follows_its_paper():
    cell = one_unit(ATRCell, **ONE_AND_ONE)
    h = -1.5

    for x in XS:
        p, q = 0.5 * x + 0.1, 0.7 * h + 0.05
        expected = sigmoid(p + q) * p + sigmoid(p - q) * h

        assert step(cell, x, h) == near(expected)
        h = expected


def test_chaos_free_network_follows_its_paper():
    cell = one_unit(CFNCell, **THREE_AND_TWO)
    h = -1.5

    for x in XS:
        theta = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        eta = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        expected = theta * math.tanh(h) + eta * math.tanh(0.8 * x + 0.3)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_a_chaos_free_network_without_input_fades_to_zero_whatever_its_weights():
    cell = CFNCell(3, 8, bias=False, dtype=torch.float64)
    perturb(cell, 3.0)
    x, start = torch.zeros(4, 200, 3), 5 * torch.randn(4, 8)

    y, (h,) = unroll(cell, x.double(), (start.double(),))

    assert (y[:, 1:].abs() <= y[:, :-1].abs()).all()
    assert h.abs().max() < 0.15


def test_a_chaos_free_network_begins_by_remembering():
    bias = CFNCell(3, 4).split(CFNCell(3, 4).bias_ih)

    assert (bias.theta == 1).all()
    assert (bias.eta == -1).all()
    assert not bias.n.any()


def test_minimal_network_follows_its_paper():
    cell = one_unit(MinimalRNNCell, **ONE_AND_ONE, weight_z=-1.3)
    h = -1.5

    for x in XS:
        z = math.tanh(0.5 * x + 0.1)
        u = sigmoid(0.7 * h + 0.05 - 1.3 * z)
        expected = u * h + (1 - u) * z

        assert step(cell, x, h) == near(expected)
        h = expected


def test_the_gate_of_a_minimal_network_sees_all_units_of_memory_and_mapped_input():
    cell = MinimalRNNCell(3, 2, dtype=torch.float64)
    perturb(cell)
    p, x, h = numbers(cell), [1.3, -0.4, 0.6], [0.9, -0.8]

    z = each(math.tanh, total(times(p["weight_ih"], x), p["bias_ih"]))
    u = total(times(p["weight_hh"], h), p["bias_hh"], times(p["weight_z"], z))
    expected = each(lambda u, h, z: sigmoid(u) * h + (1 - sigmoid(u)) * z, u, h, z)

    assert after(cell, x, h)[0] == near(expected)


def test_light_recurrent_unit_follows_its_paper():
    cell = one_unit(LightRUCell, **TWO_AND_ONE)
    h = -1.5

    for x in XS:
        f = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        expected = (1 - f) * h + f * math.tanh(-0.3 * x - 0.4)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_stackable_unit_follows_its_paper():
    cell = one_unit(STARCell, **TWO_AND_ONE)
    h = -1.5

    for x in XS:
        k = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        z = math.tanh(-0.3 * x - 0.4)
        expected = math.tanh((1 - k) * h + k * z)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_a_stackable_unit_may_start_as_its_paper_starts_it():
    cell = chrono(initialize(STARCell(4, 4), weight_ih="orthogonal"), 30)

    for block in cell.weight_ih.chunk(2):
        torch.testing.assert_close(block @ block.T, torch.eye(4))
    k = cell.split(cell.bias_ih).k
    assert ((-math.log(29) <= k) & (k <= 0)).all()
    assert k.unique().numel() == 4
