"""RWKV-4 against its paper, in plain floats."""

import math

import numpy as np
import pytest
import torch

from seqnets import unroll
from seqnets.cells import RWKV4Cell
from seqnets.testing import check_backend, one_unit, step
from seqnets.testing.laws import perturb

from .plain import sigmoid


def test_rwkv4_follows_its_paper():
    w, b = (0.5, -0.3, 0.8), (0.1, -0.4, 0.3)
    cell = one_unit(RWKV4Cell, w=w, b=b, omega=-0.7, bonus=0.6)
    keys, values, state = [], [], (0.0, 0.0, 0.0, 0.0)
    fades = math.exp(-0.7)

    for t, x in enumerate((2.0, -0.7, 0.4, 6.0, -3.0)):
        r, k, v = (weight * x + bias for weight, bias in zip(w, b, strict=True))
        weights = [math.exp(-(t - 1 - i) * fades + key) for i, key in enumerate(keys)]
        weights.append(math.exp(0.6 + k))
        keys, values = [*keys, k], [*values, v]
        mean = sum(a * v for a, v in zip(weights, values, strict=True)) / sum(weights)

        state = step(cell, x, *state)

        assert state[0] == pytest.approx(sigmoid(r) * mean, abs=1e-12)


def test_rwkv4_of_several_units_follows_its_paper():
    cell = RWKV4Cell(3, 4, dtype=torch.float64)
    perturb(cell)
    p = {name: t.detach().numpy() for name, t in cell.named_parameters()}
    x = np.random.default_rng(0).normal(size=(9, 3))
    a, n, expected = np.zeros(4), np.zeros(4), []

    for x_t in x:
        r, k, v = np.split(p["weight_ih"] @ x_t + p["bias_ih"], 3)
        new, kept = np.exp(p["bonus"] + k), np.exp(-np.exp(p["omega"]))
        expected.append((a + new * v) / (n + new) / (1 + np.exp(-r)))
        a, n = kept * a + np.exp(k) * v, kept * n + np.exp(k)

    y = unroll(cell, torch.tensor(x)[None])[0][0]
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("key", [-2000.0, 2000.0])
def test_rwkv4_of_large_keys_is_the_mean_of_values(key):
    cell = RWKV4Cell(1, 1)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
        cell.bias_ih.copy_(torch.tensor([0.0, key, 0.0]))
        cell.omega.fill_(-20)
        cell.bonus.fill_(0)
    x = torch.randn(2, 30, 1)

    y, _ = unroll(cell, x)

    means = x.cumsum(1) / torch.arange(1, 31)[:, None]
    torch.testing.assert_close(y, means / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "c"])
def test_rwkv4_divides_by_nothing_near_zero_where_a_state_was_learned(backend):
    cell = RWKV4Cell(3, 4)
    x, one = torch.randn(2, 5, 3), torch.ones(2, 4)
    state = 0 * one, one, -torch.exp(cell.bonus + cell.project(x[:, 0])[:, 4:8]), 0 * one

    y, _ = unroll(cell, x, state, backend=backend)

    assert y.abs().max() < 10


def test_rwkv4_starts_as_the_first_layer_of_its_published_code():
    cell = RWKV4Cell(3, 5)

    assert cell.omega[0] == -5
    assert cell.omega[-1] == 3
    assert cell.omega[1].item() == pytest.approx(-5 + 8 * 0.25**0.7)
    zigzag = torch.tensor([0.0, 0.5, -0.5, 0.0, 0.5])
    torch.testing.assert_close(cell.bonus, math.log(0.3) + zigzag)


def test_rwkv4_runs_in_the_loops():
    assert check_backend(RWKV4Cell(3, 4), "c", steps=(1, 5)) == {}
