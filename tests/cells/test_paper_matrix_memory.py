"""Cells with a matrix memory against their papers: one unit in plain floats, several in NumPy."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    DeltaNetCell,
    GatedDeltaNetCell,
    GatedLinearAttentionCell,
    MLSTMCell,
    RetentionCell,
)
from seqnets.errors import ConfigError
from seqnets.testing import check_cell, one_unit, step
from seqnets.testing.laws import perturb

from .final import MATRIX_CELLS
from .plain import sigmoid

XS = (2.0, -0.7, 0.4)
KEYS = {"weight_qk": (0.8, -1.3), "bias_qk": (-0.2, 0.3)}


def softplus(a):
    return math.log1p(math.exp(a))


def unit(a):
    u = a * sigmoid(a)
    return u / math.sqrt(u * u + 1e-6)


def test_mlstm_follows_its_paper():
    heads = {"weight_heads": (0.9, 0.6), "bias_heads": (0.5, 1.2)}
    cell = one_unit(MLSTMCell, w=(0.5, -0.3), b=(0.1, -0.4), **KEYS, **heads)
    state = (-1.5, 0.9, 0.4, 0.3)

    for x in XS:
        _, c, n, m = state
        q, k, v, o = 0.8 * x - 0.2, -1.3 * x + 0.3, 0.5 * x + 0.1, sigmoid(-0.3 * x - 0.4)
        log_i, log_f = 0.9 * x + 0.5, math.log(sigmoid(0.6 * x + 1.2))
        m_after = max(log_f + m, log_i, 0)
        kept, written = math.exp(log_f + m - m_after), math.exp(log_i - m_after)
        c, n = kept * c + written * v * k, kept * n + written * k
        h = o * c * q / max(abs(n * q), math.exp(-m_after))
        expected = h, c, n, m_after

        assert step(cell, x, *state) == pytest.approx(expected, abs=1e-12)
        state = expected


def test_mlstm_computes_the_same_as_without_its_stabiliser():
    heads = {"weight_heads": (0.9, 0.6), "bias_heads": (-0.5, 0.2)}
    cell = one_unit(MLSTMCell, w=(0.5, -0.3), b=(0.1, -0.4), **KEYS, **heads)
    c, n = 0.0, 0.0
    state = (0.0, 0.0, 0.0, 0.0)

    for x in (*XS, -3.0, 0.2):
        i, f = math.exp(0.9 * x - 0.5), sigmoid(0.6 * x + 0.2)
        q, k, v, o = 0.8 * x - 0.2, -1.3 * x + 0.3, 0.5 * x + 0.1, sigmoid(-0.3 * x - 0.4)
        c, n = f * c + i * v * k, f * n + i * k
        state = step(cell, x, *state)

        assert state[0] == pytest.approx(o * c * q / max(abs(n * q), 1), abs=1e-12)
        assert state[1] * math.exp(state[3]) == pytest.approx(c, abs=1e-12)
        assert state[2] * math.exp(state[3]) == pytest.approx(n, abs=1e-12)


@pytest.mark.parametrize("backend", ["reference", "scan"])
@pytest.mark.parametrize("gate", ["i", "f"])
@pytest.mark.parametrize("bias", [-300.0, 300.0])
def test_mlstm_neither_overflows_nor_divides_by_zero(bias, gate, backend):
    cell = MLSTMCell(3, 4, num_heads=2)
    torch.nn.init.constant_(cell.bias_of(gate).data, bias)
    x = torch.randn(2, 70, 3, requires_grad=True)

    y, state = unroll(cell, x, backend=backend)
    y.sum().backward()

    grads = [p.grad for p in cell.parameters()]
    assert all(torch.isfinite(part).all() for part in (y, *state, x.grad, *grads))


def test_mlstm_starts_as_its_published_code_does():
    cell = MLSTMCell(3, 800, num_heads=100)

    assert not cell.weight_heads.any()
    torch.testing.assert_close(cell.bias_of("f"), torch.linspace(3, 6, 100))
    assert 0.07 < cell.bias_of("i").std() < 0.13
    assert not cell.bias_ih.any()


def test_retention_follows_its_paper():
    cell = one_unit(RetentionCell, w=(0.5,), b=(0.1,), **KEYS)
    s = 0.9

    for x in XS:
        s_after = (1 - 2**-5) * s + (0.5 * x + 0.1) * (-1.3 * x + 0.3)

        assert step(cell, x, -1.5, s) == pytest.approx(((0.8 * x - 0.2) * s_after, s_after))
        s = s_after


def test_each_head_of_retention_fades_at_its_rate():
    cell = RetentionCell(3, 8, num_heads=4, dtype=torch.float64)

    expected = torch.tensor([1 - 1 / 32, 1 - 1 / 64, 1 - 1 / 128, 1 - 1 / 256]).double()
    torch.testing.assert_close(cell.log_gamma.exp(), expected)


def test_gated_linear_attention_follows_its_paper():
    into, out = [0.1 * r - 0.4 for r in range(16)], [0.3 - 0.2 * r for r in range(16)]
    fades = {"weight_r": into, "weight_alpha": out, "bias_alpha": 0.4}
    cell = one_unit(GatedLinearAttentionCell, w=(0.5,), b=(0.1,), **KEYS, **fades)
    s = 0.9

    for x in XS:
        inner = sum(a * b * x for a, b in zip(into, out, strict=True))
        alpha = sigmoid(inner + 0.4) ** (1 / 16)
        s_after = alpha * s + (0.5 * x + 0.1) * (-1.3 * x + 0.3)

        assert step(cell, x, -1.5, s) == pytest.approx(((0.8 * x - 0.2) * s_after, s_after))
        s = s_after


def test_delta_net_follows_its_paper():
    heads = {"weight_heads": 0.9, "bias_heads": 0.5}
    cell = one_unit(DeltaNetCell, w=(0.5,), b=(0.1,), **KEYS, **heads)
    s = 0.9

    for x in XS:
        q, k, beta = unit(0.8 * x - 0.2), unit(-1.3 * x + 0.3), sigmoid(0.9 * x + 0.5)
        s_after = s + beta * (0.5 * x + 0.1 - s * k) * k

        assert step(cell, x, -1.5, s) == pytest.approx((q * s_after, s_after))
        s = s_after


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


def columns(p, x, *names):
    """What the weights of these names make of an input."""
    return [p[f"weight_{name}"] @ x + p[f"bias_{name}"] for name in names]


def silu(a):
    return a / (1 + np.exp(-a))


def normed(a):
    u = silu(a)
    return u / np.sqrt((u * u).sum(-1, keepdims=True) + 1e-6)


def matrices(cell, x):
    """What a cell's paper gives for one row (T, I), with matrices (V, K) as there."""
    p = {name: t.detach().numpy() for name, t in cell.tensors().items()}
    N, K, V, kind = cell.num_heads, cell.key_size, cell.value_size, type(cell)
    C, n, outputs = np.zeros((N, V, K)), np.zeros((N, K)), []
    for x_t in x:
        ih, qk = columns(p, x_t, "ih", "qk")
        q, k = qk.reshape(2, N, K)
        v, *o = ih.reshape(-1, N, V)
        heads = columns(p, x_t, "heads")[0].reshape(-1, N) if "weight_heads" in p else []
        if kind is MLSTMCell:
            i, f = np.exp(heads[0]), 1 / (1 + np.exp(-heads[1]))
            k = k / np.sqrt(K)
            C = f[:, None, None] * C + i[:, None, None] * np.einsum("nv,nk->nvk", v, k)
            n = f[:, None] * n + i[:, None] * k
            found = np.einsum("nvk,nk->nv", C, q)
            below = np.maximum(np.abs((n * q).sum(-1, keepdims=True)), 1)
            outputs.append(found / below / (1 + np.exp(-o[0])))
            continue
        if kind is RetentionCell:
            kept, k = (1 - 2.0 ** (-5 - np.arange(N)))[:, None], k / np.sqrt(K)
        elif kind is GatedLinearAttentionCell:
            alpha = p["weight_alpha"] @ (p["weight_r"] @ x_t) + p["bias_alpha"]
            kept, q = (1 / (1 + np.exp(-alpha))).reshape(N, K) ** (1 / 16), q / np.sqrt(K)
        else:
            q, k, kept = normed(q) / np.sqrt(K), normed(k), np.ones((N, 1))
            if kind is GatedDeltaNetCell:
                kept = np.exp(-np.exp(p["A_log"]) * np.log1p(np.exp(heads[1])))[:, None]
        C = C * kept[:, None, :]
        if kind in (DeltaNetCell, GatedDeltaNetCell):
            beta = 1 / (1 + np.exp(-heads[0]))
            v = beta[:, None] * (v - np.einsum("nvk,nk->nv", C, k))
        C = C + np.einsum("nv,nk->nvk", v, k)
        outputs.append(np.einsum("nvk,nk->nv", C, q))
    return np.stack(outputs).reshape(len(x), N * V)


@pytest.mark.parametrize("backend", ["reference", "scan"])
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_several_heads_follow_their_paper(cell_cls, backend):
    cell = cell_cls(3, 6, num_heads=2, key_size=4, dtype=torch.float64)
    perturb(cell)
    x = np.random.default_rng(0).normal(size=(9, 3))

    found = unroll(cell, torch.tensor(x)[None], backend=backend)[0][0].detach().numpy()

    np.testing.assert_allclose(found, matrices(cell, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_heads_and_keys_of_another_size_obey_the_laws(cell_cls):
    check_cell(partial(cell_cls, hidden_size=4, num_heads=2, key_size=3))


@pytest.mark.parametrize("heads", [3, 5])
def test_heads_that_do_not_divide_the_units_are_refused(heads):
    with pytest.raises(ConfigError, match=f"num_heads is {heads}, expected a divisor of hidden_si"):
        MLSTMCell(3, 4, num_heads=heads)


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_a_key_of_no_size_is_refused(cell_cls):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: key_size is 0"):
        cell_cls(3, 4, key_size=0)
