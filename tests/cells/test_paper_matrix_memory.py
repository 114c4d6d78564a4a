"""Cells with a matrix memory against their papers: one unit in plain floats, several in NumPy."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    GatedLinearAttentionCell,
    HGRN2Cell,
    KimiDeltaAttentionCell,
    LearnedState,
    LinearAttentionCell,
    MLSTMCell,
    RetentionCell,
    RWKV6Cell,
    RWKV7Cell,
    SSDCell,
)
from seqnets.errors import ConfigError
from seqnets.testing import check_cell, one_unit, step
from seqnets.testing.laws import perturb

from . import memories
from .final import MATRIX_CELLS
from .plain import sigmoid

XS = (2.0, -0.7, 0.4)
KEYS = {"weight_qk": (0.8, -1.3), "bias_qk": (-0.2, 0.3)}


def softplus(a):
    return math.log1p(math.exp(a))


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


def test_linear_attention_follows_its_paper():
    cell = one_unit(LinearAttentionCell, w=(0.5,), b=(0.1,), **KEYS)
    state = (-1.5, 0.9, 0.4, 0.0)

    for x in XS:
        _, s, z, _ = state
        q, k = (a + 1 if a > 0 else math.exp(a) for a in (0.8 * x - 0.2, -1.3 * x + 0.3))
        s, z = s + (0.5 * x + 0.1) * k, z + k
        expected = s * q / (z * q), s, z, 0.0

        assert step(cell, x, *state) == pytest.approx(expected, abs=1e-12)
        state = expected


@pytest.mark.parametrize("backend", ["reference", "scan"])
def test_linear_attention_is_the_mean_of_what_keys_weigh_alike(backend):
    cell = LinearAttentionCell(3, 4, num_heads=2, dtype=torch.float64)
    torch.nn.init.zeros_(cell.weight_qk)
    x = torch.randn(2, 40, 3, dtype=torch.float64)

    values = x @ cell.weight_ih.T
    expected = values.cumsum(1) / torch.arange(1, 41)[:, None]
    torch.testing.assert_close(unroll(cell, x, backend=backend)[0], expected)


@pytest.mark.parametrize("backend", ["reference", "scan"])
def test_linear_attention_whose_keys_vanish_divides_by_no_zero(backend):
    cell = LinearAttentionCell(3, 4)
    torch.nn.init.constant_(cell.bias_qk, -300.0)
    x = torch.randn(2, 40, 3, requires_grad=True)

    y, _ = unroll(cell, x, backend=backend)
    y.sum().backward()

    assert not y.any()
    assert all(p.grad.isfinite().all() for p in (x, *cell.parameters()))


@pytest.mark.parametrize("backend", ["reference", "scan"])
def test_linear_attention_learns_what_it_knows_at_the_start(backend):
    cell = LearnedState(LinearAttentionCell(3, 4, dtype=torch.float64))
    x = torch.randn(2, 3, 3, dtype=torch.float64)

    unroll(cell, x, backend=backend)[0].sum().backward()

    assert cell.initial_S.grad.abs().max() > 0.1


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


def test_hgrn2_follows_its_paper():
    cell = one_unit(HGRN2Cell, w=(0.5,), b=(0.1,), beta=-0.4, **KEYS)
    s, gamma = 0.9, sigmoid(-0.4)

    for x in XS:
        o, f = sigmoid(0.8 * x - 0.2), gamma + (1 - gamma) * sigmoid(-1.3 * x + 0.3)
        i = (0.5 * x + 0.1) * sigmoid(0.5 * x + 0.1)
        s_after = f * s + (1 - f) * i

        assert step(cell, x, -1.5, s) == pytest.approx((o * s_after, s_after))
        s = s_after


def test_ssd_follows_its_paper():
    heads = {"weight_heads": 0.9, "bias_heads": 0.5, "A_log": 0.3, "D": 1.7}
    cell = one_unit(SSDCell, w=(0.5,), b=(0.1,), **KEYS, **heads)
    s = 0.9

    for x in XS:
        u, C, B, dt = 0.5 * x + 0.1, 0.8 * x - 0.2, -1.3 * x + 0.3, softplus(0.9 * x + 0.5)
        s_after = math.exp(-dt * math.exp(0.3)) * s + dt * B * u

        assert step(cell, x, -1.5, s) == pytest.approx((C * s_after + 1.7 * u, s_after))
        s = s_after


def test_ssd_starts_as_its_published_code_does():
    cell = SSDCell(3, 800, num_heads=800, dt_min=0.01, dt_max=0.5)
    dt, rate = torch.nn.functional.softplus(cell.bias_of("dt")), cell.A_log.exp()

    assert 0.0099 <= dt.min() < 0.011 < 0.45 < dt.max() <= 0.5001
    assert 1 <= rate.min() < 1.5 < 15.5 < rate.max() <= 16
    assert (cell.D == 1).all()


def test_rwkv6_follows_its_paper():
    into, out = [0.1 * r - 1.4 for r in range(32)], [0.5 - 0.2 * r for r in range(32)]
    keys = {"weight_w1": into, "weight_w2": out, "bias_w": -0.4, "bonus": 0.8}
    cell = one_unit(RWKV6Cell, w=(0.5,), b=(0.1,), **KEYS, **keys)
    s = 0.9

    for x in XS:
        r, k, v = 0.8 * x - 0.2, -1.3 * x + 0.3, 0.5 * x + 0.1
        d = sum(b * math.tanh(a * x) for a, b in zip(into, out, strict=True)) - 0.4
        s_after = math.exp(-math.exp(d)) * s + k * v

        assert step(cell, x, -1.5, s) == pytest.approx((r * (s + 0.8 * k * v), s_after))
        s = s_after


def test_rwkv6_starts_as_its_published_code_does_in_a_first_layer():
    cell = RWKV6Cell(12, 8, num_heads=2, rank=5, dtype=torch.float64)
    w, u = zip(*((-6 + 5 * (n / 7) ** 0.7, 0.1 * ((n + 1) % 3 - 1)) for n in range(8)), strict=True)

    torch.testing.assert_close(cell.bias_w, torch.tensor(w).double())
    torch.testing.assert_close(cell.bonus, torch.tensor(u).double())
    for weight, scale in zip((cell.weight_ih, *cell.weight_qk.chunk(2)), (1, 1, 0.1), strict=True):
        torch.testing.assert_close(weight @ weight.T, scale**2 * torch.eye(8).double())
    assert not cell.weight_w1.any()
    assert 0.005 < cell.weight_w2.abs().max() <= 0.01


def test_the_gates_of_hgrn2_start_at_its_bound():
    cell = HGRN2Cell(3, 4, lower_bound=0.9, dtype=torch.float64)

    torch.testing.assert_close(torch.sigmoid(cell.beta), torch.full((4,), 0.9).double())


@pytest.mark.parametrize("backend", ["reference", "scan"])
@pytest.mark.parametrize("size", [-300.0, 300.0])
@pytest.mark.parametrize(
    ("cell_cls", "names"),
    [
        (HGRN2Cell, ("beta",)),
        (HGRN2Cell, ("beta", "bias_qk")),
        (SSDCell, ("bias_heads",)),
        (KimiDeltaAttentionCell, ("bias_alpha",)),
        (RWKV6Cell, ("bias_w",)),
        (RWKV7Cell, ("bias_w",)),
        (RWKV7Cell, ("bias_a",)),
    ],
)
def test_gates_that_keep_all_or_nothing_stay_numbers(cell_cls, names, size, backend):
    cell = cell_cls(3, 4, num_heads=2)
    for name in names:
        torch.nn.init.constant_(cell.get_parameter(name), size)
    x = torch.randn(2, 70, 3, requires_grad=True)

    y, state = unroll(cell, x, backend=backend)
    y.sum().backward()

    grads = [p.grad for p in cell.parameters()]
    assert all(torch.isfinite(part).all() for part in (y, *state, x.grad, *grads))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("backend", ["reference", "scan"])
def test_heads_of_a_group_share_queries_and_keys(groups, backend):
    cell = SSDCell(3, 8, num_heads=4, num_groups=groups, key_size=3, dtype=torch.float64)
    perturb(cell)
    x = np.random.default_rng(0).normal(size=(9, 3))

    found = unroll(cell, torch.tensor(x)[None], backend=backend)[0][0].detach().numpy()

    assert cell.weight_qk.shape == (2 * groups * 3, 3)
    np.testing.assert_allclose(found, memories.run(cell, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [3, 8])
def test_groups_that_do_not_divide_the_heads_are_refused(groups):
    with pytest.raises(ConfigError, match=f"num_groups is {groups}, expected a divisor of num_hea"):
        SSDCell(3, 8, num_heads=4, num_groups=groups)


@pytest.mark.parametrize(
    ("cell_cls", "options", "told"),
    [
        (SSDCell, {"dt_min": 0.1, "dt_max": 0.1}, "dt_min and dt_max are 0.1 and 0.1"),
        (HGRN2Cell, {"lower_bound": 1}, "lower_bound is 1"),
        (KimiDeltaAttentionCell, {"rank": 0}, "rank is 0"),
        (KimiDeltaAttentionCell, {"num_heads": 8}, "num_heads is 8, expected a divisor"),
        (RWKV6Cell, {"rank": 0}, "rank is 0"),
        (RWKV7Cell, {"rank": 0}, "rank is 0"),
    ],
)
def test_options_out_of_range_are_refused(cell_cls, options, told):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: {told}"):
        cell_cls(3, 4, **options)


@pytest.mark.parametrize("backend", ["reference", "scan"])
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_several_heads_follow_their_paper(cell_cls, backend):
    cell = cell_cls(3, 6, num_heads=2, key_size=4, dtype=torch.float64)
    perturb(cell)
    x = np.random.default_rng(0).normal(size=(9, 3))

    found = unroll(cell, torch.tensor(x)[None], backend=backend)[0][0].detach().numpy()

    np.testing.assert_allclose(found, memories.run(cell, x), rtol=0, atol=1e-12)


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
