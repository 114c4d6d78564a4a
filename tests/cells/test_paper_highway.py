"""Networks with highways against their papers, in plain floats."""

import math
from functools import partial

import pytest
import torch

from seqnets.cells import IntersectionRNNCell, RecurrentHighwayCell, VariationalDropout
from seqnets.errors import ConfigError, DtypeError
from seqnets.testing import check_cell, one_unit, step

from .plain import after, each, numbers, sigmoid, times, total

U = (0.7, 0.2, -0.6, 0.4, 0.3, -0.5)  # h and t of each layer
D = (0.05, 0.4, -0.2, -0.1, 0.6, -0.3)


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_recurrent_highway_network_of_a_depth_follows_its_paper(depth):
    make = partial(RecurrentHighwayCell, depth=depth)
    w, b = (0.5, -0.3), (0.1, -0.4)
    cell = one_unit(make, w=w, u=U[: 2 * depth], b=b, d=D[: 2 * depth])
    s = -1.5

    for x in (2.0, -0.7, 0.4):
        before = s
        for layer in range(depth):
            h, t = (U[2 * layer + i] * s + D[2 * layer + i] for i in (0, 1))
            if layer == 0:
                h, t = h + w[0] * x + b[0], t + w[1] * x + b[1]
            h, t = math.tanh(h), sigmoid(t)
            s = h * t + s * (1 - t)

        assert step(cell, x, before) == near(s)


def test_recurrent_highway_network_has_three_layers_unless_told():
    cell = one_unit(RecurrentHighwayCell, w=(0.5, -0.3), u=U, b=(0.1, -0.4), d=D)

    assert cell.depth == 3


def test_layers_of_two_units_read_their_own_rows():
    cell = RecurrentHighwayCell(1, 2, depth=2, bias=False, dtype=torch.float64)
    p, s = numbers(cell), [0.3, -0.8]
    w, u = p["weight_ih"], p["weight_hh"]

    h = each(math.tanh, total(times(w[:2], [2.0]), times(u[:2], s)))
    t = each(sigmoid, total(times(w[2:], [2.0]), times(u[2:4], s)))
    s1 = each(lambda h, t, s: h * t + s * (1 - t), h, t, s)
    h, t = each(math.tanh, times(u[4:6], s1)), each(sigmoid, times(u[6:], s1))

    assert after(cell, [2.0], s)[0] == near(each(lambda h, t, s: h * t + s * (1 - t), h, t, s1))


def test_the_transform_gates_of_all_layers_start_at_their_bias():
    cell = RecurrentHighwayCell(3, 4, depth=3, transform_bias=-1.5)

    assert cell.bias_hh.view(3, 2, 4)[:, 1].eq(-1.5).all()
    assert not cell.bias_hh.view(3, 2, 4)[:, 0].any()
    assert not cell.bias_ih.any()


def test_one_layer_obeys_the_laws_of_recurrence():
    check_cell(partial(RecurrentHighwayCell, hidden_size=4, depth=1))


def test_dropout_reaches_the_product_of_every_layer():
    cell = VariationalDropout(RecurrentHighwayCell(3, 400, depth=2, bias=False), 0.5)
    inside = cell.cell
    mask = torch.cat([torch.zeros(1, 200), torch.full((1, 200), 2.0)], -1)
    x, s = torch.randn(1, 3), torch.randn(1, 400)

    (dropped,) = cell.step(torch.cat([inside.project(x), mask], -1), (s,))

    (plain,) = inside.adapted(recur=lambda f: lambda h, *gates: f(h * mask, *gates)).step(
        inside.project(x), (s,)
    )
    assert torch.equal(dropped, plain)
    assert not torch.equal(dropped, inside.step(inside.project(x), (s,))[0])


@pytest.mark.parametrize(
    ("depth", "error", "message"),
    [
        (0, ConfigError, "depth is 0, expected at least 1"),
        (2.0, DtypeError, "depth is 2.0 .float., expected a positive integer"),
    ],
)
def test_invalid_depths_are_refused(depth, error, message):
    with pytest.raises(error, match=f"RecurrentHighwayCell: {message}"):
        RecurrentHighwayCell(3, 4, depth=depth)


def test_intersection_network_follows_its_paper():
    w, u = (0.5, -0.3, 0.8, 0.9), (0.7, 0.2, -0.6, 0.4)
    b, d = (0.1, -0.4, 0.3, 0.6), (0.05, 0.4, -0.2, -0.1)
    cell = one_unit(IntersectionRNNCell, w=w, u=u, b=b, d=d)
    h = -1.5

    for x in (2.0, -0.7):
        p, n, g, k = (w[i] * x + b[i] + u[i] * h + d[i] for i in range(4))
        y = sigmoid(g) * x + (1 - sigmoid(g)) * max(0.0, p)
        new = sigmoid(k) * h + (1 - sigmoid(k)) * math.tanh(n)

        assert step(cell, x, 0.3, h) == near((y, new))
        h = new


def test_the_input_that_an_intersection_network_carries_is_as_wide_as_its_output():
    with pytest.raises(ConfigError, match="IntersectionRNNCell: input_size is 3, expected hidden"):
        IntersectionRNNCell(3, 4)
