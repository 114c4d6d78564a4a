"""Cells linear in their state against their papers, in plain floats, and whole against in parts."""

import cmath
import math
import pickle

import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    Activations,
    FPoolQRNNCell,
    HGRNCell,
    IFOPoolQRNNCell,
    LRUCell,
    MinGRUCell,
    MinLSTMCell,
    PeepholeSRUCell,
    QRNNCell,
    RGLRUCell,
    S5Cell,
    SRUCell,
)
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, numbers, sigmoid, times

LINEAR = [
    MinGRUCell,
    MinLSTMCell,
    SRUCell,
    QRNNCell,
    FPoolQRNNCell,
    IFOPoolQRNNCell,
    HGRNCell,
    LRUCell,
    RGLRUCell,
    S5Cell,
]
TWO = {"w": (0.5, -0.3), "b": (0.1, -0.4)}
THREE = {"w": (0.5, -0.3, 0.8), "b": (0.1, -0.4, 0.3)}
FOUR = {"w": (0.5, -0.3, 0.8, 0.9), "b": (0.1, -0.4, 0.3, 0.6)}
XS = (2.0, -0.7)


def near(expected):
    return pytest.approx(expected, abs=1e-12)


def g(a):
    return a + 0.5 if a >= 0 else sigmoid(a)


@pytest.mark.parametrize("h", [0.8, -1.5])
def test_minimal_gru_follows_its_paper(h):
    cell = one_unit(MinGRUCell, **TWO)

    for x in XS:
        z = sigmoid(0.5 * x + 0.1)
        expected = (1 - z) * h + z * g(-0.3 * x - 0.4)

        assert step(cell, x, h) == near(expected)
        h = expected


@pytest.mark.parametrize("h", [0.8, -1.5])
def test_minimal_lstm_follows_its_paper(h):
    cell = one_unit(MinLSTMCell, **THREE)

    for x in XS:
        f, i = sigmoid(0.5 * x + 0.1), sigmoid(-0.3 * x - 0.4)
        expected = f / (f + i) * h + i / (f + i) * g(0.8 * x + 0.3)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_minimal_lstm_does_not_divide_by_zero_if_both_gates_are_closed():
    cell = one_unit(MinLSTMCell, w=(-900.0, -900.0, 0.5))

    assert step(cell, 1.0, 0.4) == near((0.4 + 1.0) / 2)


@pytest.mark.parametrize("bias", [0.0, -1.0])
@pytest.mark.parametrize("squash", ["identity", "tanh"])
def test_simple_recurrent_unit_follows_its_paper(bias, squash):
    cell = one_unit(SRUCell, **THREE)
    cell.highway_bias = bias
    alpha = math.sqrt(1 + 2 * math.exp(bias))
    shown = math.tanh if squash == "tanh" else float
    c = 0.9

    for x in XS:
        f, r = sigmoid(-0.3 * x - 0.4), sigmoid(0.8 * x + 0.3)
        memory = f * c + (1 - f) * (0.5 * x + 0.1)
        expected = r * shown(memory) + (1 - r) * alpha * x, memory

        assert step(Activations(cell, squash=squash), x, -1.5, c) == near(expected)
        c = memory


def test_simple_recurrent_unit_with_peepholes_follows_its_paper():
    cell = one_unit(PeepholeSRUCell, **THREE, v_f=0.35, v_r=-0.65)
    c = 0.9

    for x in XS:
        f, r = sigmoid(-0.3 * x - 0.4 + 0.35 * c), sigmoid(0.8 * x + 0.3 - 0.65 * c)
        memory = f * c + (1 - f) * (0.5 * x + 0.1)
        expected = r * memory + (1 - r) * math.sqrt(3) * x, memory

        assert step(cell, x, -1.5, c) == near(expected)
        c = memory


def test_the_highway_multiplies_an_input_that_is_not_as_wide_as_the_output():
    cell = SRUCell(3, 2, dtype=torch.float64)
    p, x = numbers(cell), [0.7, -1.2, 0.4]
    n, f, r = (times(p["weight_ih"][k : k + 2], x) for k in (0, 2, 4))
    highway = times(p["weight_x"], x)

    h, _ = after(cell, x, [0.0, 0.0], [0.0, 0.0])

    assert h == near(
        [
            sigmoid(r[k]) * (1 - sigmoid(f[k])) * n[k]
            + (1 - sigmoid(r[k])) * math.sqrt(3) * highway[k]
            for k in (0, 1)
        ]
    )


def test_the_highway_bias_is_an_option_and_keeps_the_variance_of_the_input():
    cell = SRUCell(200, 200, highway_bias=-1.0)
    x = torch.randn(100, 1, 200) * 1.3

    assert torch.equal(cell.split(cell.bias_ih).r, torch.full((200,), -1.0))
    assert cell.weight_x is None
    y, _ = unroll(cell, x.expand(-1, 60, -1))
    assert y[:, -1].var().item() == pytest.approx(1.3**2, rel=0.15)


def test_a_highway_bias_needs_a_bias():
    with pytest.raises(ConfigError, match=r"SRUCell: highway_bias is -1\.0, expected 0 where bias"):
        SRUCell(3, 4, highway_bias=-1.0, bias=False)


def convolved(v, x, before):
    """What each gate is made of: a convolution over this input and the one before."""
    parts = zip(FOUR["w"], v, FOUR["b"], strict=False)
    return [w * x + b + v * before for w, v, b in parts]


@pytest.mark.parametrize("before", [0.0, 1.3])
def test_quasi_recurrent_network_follows_its_paper(before):
    v = (0.25, -0.45, 0.15)
    cell = one_unit(QRNNCell, **THREE, weight_before=v)
    c = 0.9

    for x in XS:
        z, f, o = convolved(v, x, before)
        memory = sigmoid(f) * c + (1 - sigmoid(f)) * math.tanh(z)
        state = -1.5, c, *(part * before for part in v)

        assert step(cell, x, *state)[:2] == near((sigmoid(o) * memory, memory))
        assert step(cell, x, *state)[2:] == near(tuple(part * x for part in v))
        c, before = memory, x


@pytest.mark.parametrize("before", [0.0, 1.3])
def test_f_pooling_follows_its_paper(before):
    v = (0.25, -0.45)
    cell = one_unit(FPoolQRNNCell, **TWO, weight_before=v)
    h = 0.9

    for x in XS:
        z, f = convolved(v, x, before)
        expected = sigmoid(f) * h + (1 - sigmoid(f)) * math.tanh(z)

        assert step(cell, x, h, *(part * before for part in v))[0] == near(expected)
        h, before = expected, x


@pytest.mark.parametrize("before", [0.0, 1.3])
def test_ifo_pooling_follows_its_paper(before):
    v = (0.25, -0.45, 0.15, -0.35)
    cell = one_unit(IFOPoolQRNNCell, **FOUR, weight_before=v)
    c = 0.9

    for x in XS:
        z, f, o, i = convolved(v, x, before)
        memory = sigmoid(f) * c + sigmoid(i) * math.tanh(z)
        state = -1.5, c, *(part * before for part in v)

        assert step(cell, x, *state)[:2] == near((sigmoid(o) * memory, memory))
        c, before = memory, x


def test_hierarchically_gated_network_follows_its_paper_in_real_numbers():
    cell = one_unit(HGRNCell, **THREE, beta=0.7)
    h = -1.5

    for x in XS:
        f = sigmoid(0.7) + (1 - sigmoid(0.7)) * sigmoid(0.5 * x + 0.1)
        c = (-0.3 * x - 0.4) * sigmoid(-0.3 * x - 0.4)
        memory = f * h + (1 - f) * c
        expected = sigmoid(0.8 * x + 0.3) * memory, memory

        assert step(cell, x, 0.6, h) == near(expected)
        h = memory


def test_the_lower_bound_is_an_option():
    cell = HGRNCell(3, 4, lower_bound=0.9, dtype=torch.float64)

    assert torch.sigmoid(cell.beta).tolist() == near([0.9] * 4)


@pytest.mark.parametrize("bound", [-0.1, 0, 1, float("nan")])
def test_lower_bounds_out_of_range_are_refused(bound):
    with pytest.raises(ConfigError, match=r"HGRNCell: lower_bound is .* above 0 and below 1"):
        HGRNCell(3, 4, lower_bound=bound)


def test_linear_recurrent_unit_follows_its_paper_in_complex_numbers():
    rates = {"nu": -0.6, "theta": 0.2, "gamma": -0.4}
    cell = one_unit(LRUCell, **THREE, weight_re=0.65, weight_im=-0.35, **rates)
    h = 0.9 - 0.2j

    for x in XS:
        rate = cmath.exp(-math.exp(-0.6) + 1j * math.exp(0.2))
        h_after = rate * h + math.exp(-0.4) * ((0.5 - 0.3j) * x + (0.1 - 0.4j))
        y = ((0.65 - 0.35j) * h_after).real + 0.8 * x + 0.3

        assert step(cell, x, -1.5, h.real, h.imag) == near((y, h_after.real, h_after.imag))
        h = h_after


def test_every_output_depends_on_every_complex_unit():
    cell = LRUCell(3, 2, bias=False, dtype=torch.float64)
    p = numbers(cell)
    re, im = [0.5, -0.7], [0.3, 0.9]

    y, re, im = after(cell, [0.0] * 3, [0.0, 0.0], re, im)

    shown = zip(times(p["weight_re"], re), times(p["weight_im"], im), strict=True)
    assert y == near([a - b for a, b in shown])


def test_linear_recurrent_unit_starts_on_a_ring():
    cell = LRUCell(3, 4000, r_min=0.4, r_max=0.9, max_phase=0.3, dtype=torch.float64)
    radius, phase = torch.exp(-torch.exp(cell.nu)), torch.exp(cell.theta)

    assert 0.4 <= radius.min() < 0.41 < 0.89 < radius.max() <= 0.9
    assert 0 <= phase.min() < 0.01 < 0.29 < phase.max() <= 0.3
    assert radius.square().mean().item() == pytest.approx((0.4**2 + 0.9**2) / 2, abs=0.01)
    torch.testing.assert_close(torch.exp(cell.gamma), torch.sqrt(1 - radius**2))


def test_a_cell_pickled_while_its_ring_had_one_name_starts_there_again():
    cell = LRUCell(3, 40, r_min=0.4, r_max=0.5)
    cell.ring = 0.4, 0.5, cell.max_phase
    del cell.r_min, cell.r_max, cell.max_phase

    before = pickle.loads(pickle.dumps(cell))
    before.reset_parameters()

    assert repr(before) == "LRUCell(3, 40, r_min=0.4, r_max=0.5)"
    assert torch.exp(-torch.exp(before.nu)).max() < 0.501


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_linear_recurrent_unit_starts_finite_in_every_dtype(dtype):
    cell = LRUCell(3, 2000, dtype=dtype)

    assert all(parameter.isfinite().all() for parameter in cell.parameters())


@pytest.mark.parametrize("ring", [(-0.1, 0.5), (0.5, 0.5), (0.9, 0.4), (0.5, 1.1)])
def test_invalid_rings_are_refused(ring):
    with pytest.raises(ConfigError, match=r"LRUCell: r_min and r_max are .*expected 0 <= r_min"):
        LRUCell(3, 4, r_min=ring[0], r_max=ring[1])


@pytest.mark.parametrize("max_phase", [0, -1.0, float("nan")])
def test_invalid_angles_are_refused(max_phase):
    with pytest.raises(ConfigError, match=r"LRUCell: max_phase is .* a number above 0"):
        LRUCell(3, 4, max_phase=max_phase)


@pytest.mark.parametrize("Lambda", [0.7, -1.2])
def test_real_gated_linear_recurrent_unit_follows_its_paper(Lambda):
    cell = one_unit(RGLRUCell, **TWO, Lambda=Lambda)
    h = -1.5

    for x in XS:
        r, i = sigmoid(0.5 * x + 0.1), sigmoid(-0.3 * x - 0.4)
        a = sigmoid(Lambda) ** (8 * r)
        expected = a * h + math.sqrt(1 - a**2) * (i * x)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_a_product_enters_the_real_gated_unit_where_the_input_is_not_as_wide():
    cell = RGLRUCell(3, 2, dtype=torch.float64)
    p, x = numbers(cell), [0.7, -1.2, 0.4]
    r, i = (times(p["weight_ih"][k : k + 2], x) for k in (0, 2))
    a = [sigmoid(p["Lambda"][k]) ** (8 * sigmoid(r[k])) for k in (0, 1)]
    entering = times(p["weight_x"], x)

    (h,) = after(cell, x, [0.3, -0.8])

    assert h == near(
        [
            a[k] * (0.3, -0.8)[k] + math.sqrt(1 - a[k] ** 2) * sigmoid(i[k]) * entering[k]
            for k in (0, 1)
        ]
    )


def test_real_gated_units_start_with_rates_between_two_bounds():
    cell = RGLRUCell(100, 4000, a_min=0.3, a_max=0.7)
    a = torch.sigmoid(cell.Lambda) ** 8

    assert 0.3 <= a.min() < 0.301 < 0.699 < a.max() <= 0.7
    assert a.mean().item() == pytest.approx(0.5, abs=0.01)
    assert cell.weight_ih.std().item() == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_real_gated_unit_whose_gate_is_shut_keeps_its_memory_and_learns_nothing_wrong(dtype):
    cell = RGLRUCell(3, 4, dtype=dtype)
    torch.nn.init.constant_(cell.split(cell.bias_ih.data).r, -200.0)
    start = (torch.ones(2, 4, dtype=dtype),)

    y, _ = unroll(cell, torch.randn(2, 9, 3, dtype=dtype), start)
    y.sum().backward()

    torch.testing.assert_close(y, torch.ones_like(y))
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


@pytest.mark.parametrize("bounds", [(0, 0.5), (0.5, 0.5), (0.9, 0.4), (0.5, 1.0)])
def test_invalid_rates_are_refused(bounds):
    with pytest.raises(ConfigError, match=r"RGLRUCell: a_min and a_max are .*expected 0 < a_min"):
        RGLRUCell(3, 4, a_min=bounds[0], a_max=bounds[1])


@pytest.mark.parametrize("backend", ["scan", "c", "eager", "reference"])
@pytest.mark.parametrize("cell_cls", LINEAR)
def test_chunks_with_carried_state_equal_the_whole_sequence(cell_cls, backend):
    cell = cell_cls(3, 4, dtype=torch.float64)
    perturb(cell)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    start = tuple(torch.randn(2, 4, dtype=torch.float64) for _ in cell.states)
    whole = unroll(cell, x, start, backend=backend)

    for size in (1, 4):
        state, outputs = start, []
        for part in x.split(size, 1):
            y, state = unroll(cell, part, state, backend=backend)
            outputs.append(y)

        torch.testing.assert_close((torch.cat(outputs, 1), state), whole, rtol=0, atol=1e-12)

    state, outputs = start, []
    for x_t in x.unbind(1):
        y, state = cell(x_t, state)
        outputs.append(y)
    torch.testing.assert_close((torch.stack(outputs, 1), state), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["scan", "c", "eager"])
@pytest.mark.parametrize("cell_cls", LINEAR)
def test_they_run_on_every_backend(cell_cls, backend):
    assert check_backend(cell_cls(3, 5), backend, steps=(1, 6), dtypes=(torch.float64,)) == {}


def test_peepholes_are_not_linear_and_run_in_the_loops():
    cell = PeepholeSRUCell(3, 5)

    assert check_backend(cell, "c", steps=(1, 6), dtypes=(torch.float64,)) == {}
