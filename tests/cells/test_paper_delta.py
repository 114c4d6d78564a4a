"""Cells that replace what a key finds, against their papers: one unit in plain floats."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    DeltaNetCell,
    DeltaProductCell,
    GatedDeltaNetCell,
    KimiDeltaAttentionCell,
    RWKV7Cell,
)
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit, step
from seqnets.testing.laws import perturb

from . import memories
from .plain import sigmoid

XS = (2.0, -0.7, 0.4)
KEYS = {"weight_qk": (0.8, -1.3), "bias_qk": (-0.2, 0.3)}


def softplus(a):
    return math.log1p(math.exp(a))


def unit(a):
    u = a * sigmoid(a)
    return u / math.sqrt(u * u + 1e-6)


def test_delta_net_follows_its_paper():
    heads = {"weight_heads": 0.9, "bias_heads": 0.5}
    cell = one_unit(DeltaNetCell, w=(0.5,), b=(0.1,), **KEYS, **heads)
    s = 0.9

    for x in XS:
        q, k, beta = unit(0.8 * x - 0.2), unit(-1.3 * x + 0.3), sigmoid(0.9 * x + 0.5)
        s_after = s + beta * (0.5 * x + 0.1 - s * k) * k

        assert step(cell, x, -1.5, s) == pytest.approx((q * s_after, s_after))
        s = s_after


def test_delta_product_follows_its_paper():
    keys = {"weight_qk": (0.8, -1.3, 0.6), "bias_qk": (-0.2, 0.3, 0.7)}
    heads = {"weight_heads": (0.9, -0.4), "bias_heads": (0.5, 0.2)}
    cell = one_unit(DeltaProductCell, w=(0.5, -1.1), b=(0.1, 0.35), **keys, **heads)
    s = 0.9

    for x in XS:
        before, q = s, unit(0.8 * x - 0.2)
        for key, v, rate in (
            (-1.3 * x + 0.3, 0.5 * x + 0.1, 0.9 * x + 0.5),
            (0.6 * x + 0.7, -1.1 * x + 0.35, -0.4 * x + 0.2),
        ):
            k = unit(key)
            s += 2 * sigmoid(rate) * (v - s * k) * k

        assert step(cell, x, -1.5, before) == pytest.approx((q * s, s))


@pytest.mark.parametrize("writes", [1, 3])
@pytest.mark.parametrize("backend", ["reference", "scan"])
def test_delta_product_of_several_heads_follows_its_paper(writes, backend):
    cell = DeltaProductCell(3, 6, num_heads=2, key_size=4, writes=writes, dtype=torch.float64)
    perturb(cell)
    x = np.random.default_rng(0).normal(size=(9, 3))

    found = unroll(cell, torch.tensor(x)[None], backend=backend)[0][0].detach().numpy()

    np.testing.assert_allclose(found, memories.run(cell, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("writes", [1, 3])
def test_delta_product_of_any_writes_obeys_the_laws_and_is_scanned(writes):
    make = partial(DeltaProductCell, hidden_size=4, num_heads=2, writes=writes)

    check_cell(make)
    assert check_backend(make(3), "scan", steps=(1, 40), dtypes=(torch.float64,)) == {}


def test_each_write_of_delta_product_starts_as_the_one_of_delta_net_does():
    cell = DeltaProductCell(40, 40, num_heads=40, writes=3)

    for weight in (cell.weight_ih, cell.weight_qk, cell.weight_heads):
        for block in weight.split(40):
            assert 0.95 < block.abs().max() / math.sqrt(6 / 80) <= 1


def test_delta_product_without_writes_is_refused():
    with pytest.raises(ConfigError, match="DeltaProductCell: writes is 0, expected at least 1"):
        DeltaProductCell(3, 4, writes=0)


def test_gated_delta_net_follows_its_paper():
    heads = {"weight_heads": (0.9, 0.6), "bias_heads": (0.5, -1.2), "A_log": 0.3}
    cell = one_unit(GatedDeltaNetCell, w=(0.5,), b=(0.1,), **KEYS, **heads)
    s = 0.9

    for x in XS:
        q, k, beta = unit(0.8 * x - 0.2), unit(-1.3 * x + 0.3), sigmoid(0.9 * x + 0.5)
        alpha = math.exp(-math.exp(0.3) * softplus(0.6 * x - 1.2))
        s_after = alpha * s + beta * (0.5 * x + 0.1 - alpha * s * k) * k

        assert step(cell, x, -1.5, s) == pytest.approx((q * s_after, s_after))
        s = s_after


def test_gated_delta_net_starts_as_its_published_code_does():
    cell = GatedDeltaNetCell(3, 800, num_heads=800)
    dt, rate = torch.nn.functional.softplus(cell.bias_of("alpha")), cell.A_log.exp()

    assert 0.0009 <= dt.min() < 0.0012 < 0.09 < dt.max() <= 0.1001
    assert 0 < rate.min() < 0.5 < 15.5 < rate.max() <= 16


def test_kimi_delta_attention_follows_its_paper():
    heads = {"weight_heads": 0.9, "bias_heads": 0.5, "A_log": 0.3}
    fades = {"weight_r": 0.6, "weight_alpha": -1.4, "bias_alpha": -1.2}
    cell = one_unit(KimiDeltaAttentionCell, w=(0.5,), b=(0.1,), **KEYS, **heads, **fades)
    s = 0.9

    for x in XS:
        q, k, beta = unit(0.8 * x - 0.2), unit(-1.3 * x + 0.3), sigmoid(0.9 * x + 0.5)
        alpha = math.exp(-math.exp(0.3) * softplus(-1.4 * 0.6 * x - 1.2))
        s_after = (1 - beta * k * k) * alpha * s + beta * k * (0.5 * x + 0.1)

        assert step(cell, x, -1.5, s) == pytest.approx((q * s_after, s_after))
        s = s_after


def test_kimi_delta_attention_starts_as_its_docstring_says():
    cell = KimiDeltaAttentionCell(3, 800, num_heads=800)
    dt, rate = torch.nn.functional.softplus(cell.bias_alpha), cell.A_log.exp()

    assert 0.0009 <= dt.min() < 0.0012 < 0.09 < dt.max() <= 0.1001
    assert 1 <= rate.min() < 1.5 < 15.5 < rate.max() <= 16
    assert cell.rank == 1


def test_rwkv7_follows_its_paper():
    ranks = range(32)
    w = {"weight_w1": [0.1 * r - 1.4 for r in ranks], "weight_w2": [0.5 - 0.2 * r for r in ranks]}
    a = {"weight_a1": [0.7 - 0.1 * r for r in ranks], "weight_a2": [0.1 * r - 1.2 for r in ranks]}
    keys = {"bias_w": 0.4, "bias_a": -0.3, "xi": 0.8, "alpha": 0.6}
    cell = one_unit(RWKV7Cell, w=(0.5,), b=(0.1,), **KEYS, **w, **a, **keys)
    s = 0.9

    for x in XS:
        r, k, v = 0.8 * x - 0.2, -1.3 * x + 0.3, 0.5 * x + 0.1
        d = sum(q * math.tanh(p * x) for p, q in zip(*w.values(), strict=True)) + 0.4
        decay = math.exp(-math.exp(-0.5) * sigmoid(d))
        rate = sigmoid(sum(p * q * x for p, q in zip(*a.values(), strict=True)) - 0.3)
        kappa = 0.8 * k / math.sqrt((0.8 * k) ** 2 + 1e-6)
        k = k * (1 + (rate - 1) * 0.6)
        s_after = s * (decay - kappa * rate * kappa) + v * k

        assert step(cell, x, -1.5, s) == pytest.approx((r * s_after, s_after))
        s = s_after


def test_rwkv7_starts_as_its_published_code_does_in_a_first_layer():
    cell = RWKV7Cell(16, 12, num_heads=3, rank=5, dtype=torch.float64)
    w, a, xi = [], [], []
    for n in range(12):
        across, within = n / 11, (n % 4 - 1.5) / 1.5
        within *= abs(within)
        w.append(-6 + 6 * across + 0.5 + 2.5 * within)
        a.append(-0.19 + 0.3 * within + 0.4 * (across - 0.5))
        xi.append(0.71 - 0.1 * (across - 0.5))

    for name, expected in (("bias_w", w), ("bias_a", a), ("xi", xi), ("alpha", [1.02] * 12)):
        torch.testing.assert_close(getattr(cell, name), torch.tensor(expected).double())
    for name in ("w", "a"):
        second = getattr(cell, f"weight_{name}2")
        torch.testing.assert_close(second.T @ second, 0.01 * 12 / 5 * torch.eye(5).double())
        assert not getattr(cell, f"weight_{name}1").any()
    r, k = cell.weight_qk.abs().chunk(2)
    assert 0.1 < r.max() <= 0.125
    assert 0.01 < k.max() <= 0.0125
    assert 0.1 < cell.weight_ih.abs().max() <= 0.125


@pytest.mark.parametrize("size", [0, 0.1, 1])
@pytest.mark.parametrize(
    "cell_cls", [DeltaNetCell, GatedDeltaNetCell, KimiDeltaAttentionCell, RWKV7Cell]
)
def test_keys_of_length_1_have_the_derivatives_of_float32_in_float16(cell_cls, size):
    torch.manual_seed(0)
    half = cell_cls(8, 16, num_heads=2, dtype=torch.float16)
    single = copy.deepcopy(half).float()
    x = size * torch.randn(2, 6, 8).half()

    for cell in (half, single):
        y, _ = unroll(cell, x.to(cell.weight_ih.dtype), backend="reference")
        y.float().square().mean().backward()

    for found, expected in zip(half.parameters(), single.parameters(), strict=True):
        assert found.grad.isfinite().all()
        torch.testing.assert_close(found.grad.float(), expected.grad, atol=3e-3, rtol=0.03)
