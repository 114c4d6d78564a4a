"""Residual recurrent units against their authors' code, in plain floats."""

import math
from functools import partial

import pytest
import torch

from seqnets.cells import RRUCell
from seqnets.errors import ConfigError, DtypeError
from seqnets.testing import one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def test_residual_recurrent_unit_follows_its_authors():
    cell = RRUCell(3, 2, inner_size=4, dtype=torch.float64)
    perturb(cell)
    p, h = numbers(cell), [0.9, -1.5]

    for x in ([2.0, -0.7, 0.4], [0.3, 0.8, -1.1]):
        a = total(times(p["weight_ih"], x), p["bias_ih"], times(p["weight_hh"], h), p["bias_hh"])
        scale = 1 / math.sqrt(sum(each(lambda a: a * a, a)) / 4 + 1e-6)
        j = each(lambda a, scale=scale: max(0.0, a * scale), a)
        y = total(times(p["weight_y"], j), p["bias_y"])
        c = total(times(p["weight_h"], j), p["bias_h"])
        h_next = each(lambda s, h, z, c: 1.5 * sigmoid(s) * h + z * c, p["s"], h, p["z"], c)

        got = after(cell, x, [9.0, 9.0], h)
        assert got[0] == near(y)
        assert got[1] == near(h_next)
        h = h_next


def test_one_residual_unit_follows_its_authors():
    w, u, b, d = (0.5, -0.3, 0.8, 0.2), (0.7, 0.2, -0.6, 0.4), (0.1, -0.4, 0.3, 0.2), (0.05,) * 4
    layers = {"weight_y": (0.3, -0.2, 0.9, 0.1), "weight_h": (0.6, 0.4, -0.5, 0.2)}
    rest = {"bias_y": 0.1, "bias_h": -0.2, "s": 0.4, "z": 0.7}
    cell = one_unit(RRUCell, w=w, u=u, b=b, d=d, **layers, **rest)
    h = -1.5

    for x in (2.0, -0.7):
        a = [w * x + b + u * h + d for w, b, u, d in zip(w, b, u, d, strict=True)]
        scale = 1 / math.sqrt(sum(n * n for n in a) / 4 + 1e-6)
        j = [max(0.0, n * scale) for n in a]
        y = times([layers["weight_y"]], j)[0] + 0.1
        h_next = 1.5 * sigmoid(0.4) * h + 0.7 * (times([layers["weight_h"]], j)[0] - 0.2)

        assert step(cell, x, 9.0, h) == near((y, h_next))
        h = h_next


def test_a_residual_unit_starts_with_a_memory_that_nothing_is_added_to():
    cell = RRUCell(3, 2, dtype=torch.float64)

    assert after(cell, [2.0, -0.7, 0.4], [0.0, 0.0], [0.8, -0.4])[1] == near([0.76, -0.38])
    assert cell.inner_size == 10
    assert not any(cell.bias_y.tolist() + cell.bias_h.tolist())


def test_a_residual_unit_without_biases_has_none():
    cell = RRUCell(3, 2, bias=False)

    assert [cell.bias_ih, cell.bias_hh, cell.bias_y, cell.bias_h] == [None] * 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (partial(RRUCell, 3, 2, inner_size=0), ConfigError, "RRUCell: inner_size is 0"),
        (partial(RRUCell, 3, 2, inner_size=1.5), DtypeError, "RRUCell: inner_size is"),
        (partial(RRUCell, "3", 2), DtypeError, "RRUCell: input_size is '3'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
