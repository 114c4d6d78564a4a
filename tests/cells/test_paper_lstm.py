"""Further LSTMs against their papers, in plain floats."""

import math

import pytest
import torch

from seqnets.cells import (
    JANETCell,
    MultiplicativeLSTMCell,
    NASCell,
    ResidualLSTMCell,
    WMCLSTMCell,
)
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total

NUMBERS = {
    "w": (1.1, 0.5, -0.3, 0.8, 0.9),
    "u": (0.7, 0.2, -0.6, 0.4),
    "b": (-0.2, 0.1, -0.4, 0.3, 0.6),
    "d": (0.05, 0.4, -0.2, -0.1),
}


def test_multiplicative_lstm_follows_its_paper():
    cell = one_unit(MultiplicativeLSTMCell, **NUMBERS, weight_mh=-1.3)
    h, c = -1.5, 0.9

    for x in (2.0, -0.7):
        m = (1.1 * x - 0.2) * (-1.3 * h)
        i = sigmoid(0.5 * x + 0.1 + 0.7 * m + 0.05)
        f = sigmoid(-0.3 * x - 0.4 + 0.2 * m + 0.4)
        g = math.tanh(0.8 * x + 0.3 - 0.6 * m - 0.2)
        o = sigmoid(0.9 * x + 0.6 + 0.4 * m - 0.1)
        memory = f * c + i * g
        expected = o * math.tanh(memory), memory

        assert step(cell, x, h, c) == pytest.approx(expected, abs=1e-12)
        h, c = expected


def test_multiplicative_lstm_mixes_units_twice():
    cell = MultiplicativeLSTMCell(1, 2, dtype=torch.float64)
    perturb(cell)
    matrix = numbers(cell)
    x, h, c = [1.3], [0.3, -0.8], [1.0, -0.5]

    w = total(times(matrix["weight_ih"], x), matrix["bias_ih"])
    m = each(lambda a, b: a * b, w[:2], times(matrix["weight_mh"], h))
    a = total(w[2:], times(matrix["weight_hh"], m), matrix["bias_hh"])
    i, f, o = (each(sigmoid, part) for part in (a[0:2], a[2:4], a[6:8]))
    g = each(math.tanh, a[4:6])
    memory = [f[k] * c[k] + i[k] * g[k] for k in range(2)]

    assert after(cell, x, h, c)[1] == pytest.approx(memory, abs=1e-12)
    assert after(cell, x, h, c)[0] == pytest.approx([o[k] * math.tanh(memory[k]) for k in range(2)])


def test_multiplicative_lstm_does_not_project():
    with pytest.raises(ConfigError, match="MultiplicativeLSTMCell: proj_size is 2, expected 0"):
        MultiplicativeLSTMCell(3, 4, proj_size=2)


@pytest.mark.parametrize("beta", [0.0, 1.0, 0.4])
def test_janet_follows_its_paper(beta):
    cell = one_unit(JANETCell, w=(0.5, -0.3), u=(0.7, 0.2), b=(0.1, -0.4), d=(0.05, 0.4))
    cell.beta = beta
    h = -1.5

    for x in (2.0, -0.7):
        s = 0.5 * x + 0.1 + 0.7 * h + 0.05
        g = math.tanh(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        expected = sigmoid(s) * h + (1 - sigmoid(s - beta)) * g

        assert step(cell, x, h) == pytest.approx(expected, abs=1e-12)
        h = expected


def test_janet_writes_more_than_it_forgets_unless_told_otherwise():
    assert JANETCell(3, 4).beta == 1.0
    assert JANETCell(3, 4, beta=0.0).beta == 0.0


def test_cell_found_by_a_search_follows_its_paper():
    w, u = (1.1, 0.5, -0.3, 0.8, 0.9, -0.7, 0.4, 0.6), (0.7, 0.2, -0.6, 0.4, -0.9, 0.3, 1.2, -0.8)
    b, d = (-0.2, 0.1, 0.4, 0.3, 0.6, 0.2, -0.1, 0.5), (0.05, 0.4, -0.2, -1.1, 0.3, 0.1, 0.7, -0.3)
    cell = one_unit(NASCell, w=w, u=u, b=b, d=d)
    tanh, relu = math.tanh, lambda a: max(0.0, a)
    h, c = -1.5, 0.9

    for x in (2.0, -0.7):
        v = [(w[k] * x + b[k], u[k] * h + d[k]) for k in range(8)]
        a = [sum(pair) for pair in v]
        new = tanh(tanh(sigmoid(a[0]) * relu(a[1])) + c)
        new *= tanh(sigmoid(a[2]) + relu(v[3][0] * v[3][1]))
        shown = tanh(tanh(a[4]) * sigmoid(a[5])) + sigmoid(tanh(a[6]) + sigmoid(a[7]))
        expected = tanh(new * tanh(shown)), new

        assert step(cell, x, h, c) == pytest.approx(expected, abs=1e-12)
        h, c = expected


def test_residual_lstm_follows_its_paper():
    given = {key: values[:4] for key, values in NUMBERS.items()}
    given |= {"w": (*given["w"], -0.9), "b": (*given["b"], 0.25)}  # of the shortcut
    cell = one_unit(ResidualLSTMCell, **given, p_i=0.9, p_f=-1.3, p_o=0.7, weight_m=(1.6,))
    h, c = -1.5, 0.9

    for x in (2.0, -0.7):
        i = sigmoid(1.1 * x - 0.2 + 0.7 * h + 0.05 + 0.9 * c)
        f = sigmoid(0.5 * x + 0.1 + 0.2 * h + 0.4 - 1.3 * c)
        g = math.tanh(-0.3 * x - 0.4 - 0.6 * h - 0.2)
        memory = f * c + i * g
        o = sigmoid(0.8 * x + 0.3 + 0.4 * h - 0.1 + 0.7 * memory)
        expected = o * (1.6 * math.tanh(memory) - 0.9 * x + 0.25), memory

        assert step(cell, x, h, c) == pytest.approx(expected, abs=1e-12)
        h, c = expected


def test_the_shortcut_and_the_map_of_a_residual_lstm_mix_units():
    cell = ResidualLSTMCell(2, 2, dtype=torch.float64)
    perturb(cell)
    matrix, x, h, c = numbers(cell), [1.3, -0.6], [0.3, -0.8], [1.0, -0.5]

    a = total(times(matrix["weight_ih"][:8], x), matrix["bias_ih"][:8], matrix["bias_hh"])
    a = total(a, times(matrix["weight_hh"], h))
    p_i, p_f, p_o = matrix["p_i"], matrix["p_f"], matrix["p_o"]
    memory = [
        sigmoid(a[2 + k] + p_f[k] * c[k]) * c[k]
        + sigmoid(a[k] + p_i[k] * c[k]) * math.tanh(a[4 + k])
        for k in range(2)
    ]
    shown = total(
        times(matrix["weight_m"], each(math.tanh, memory)),
        times(matrix["weight_ih"][8:], x),
        matrix["bias_ih"][8:],
    )
    o = [sigmoid(a[6 + k] + p_o[k] * memory[k]) for k in range(2)]

    expected = [o[k] * shown[k] for k in range(2)]
    assert after(cell, x, h, c)[0] == pytest.approx(expected, abs=1e-12)


def test_lstm_with_working_memory_connections_follows_its_paper():
    given = {key: values[:4] for key, values in NUMBERS.items()}
    cell = one_unit(WMCLSTMCell, **given, weight_cg=(0.9, -1.3, 0.7), bias_cg=(0.2, -0.1, 0.3))
    h, c = -1.5, 0.9

    for x in (2.0, -0.7):
        i = sigmoid(1.1 * x - 0.2 + 0.7 * h + 0.05 + math.tanh(0.9 * c + 0.2))
        f = sigmoid(0.5 * x + 0.1 + 0.2 * h + 0.4 + math.tanh(-1.3 * c - 0.1))
        g = math.tanh(-0.3 * x - 0.4 - 0.6 * h - 0.2)
        memory = f * c + i * g
        o = sigmoid(0.8 * x + 0.3 + 0.4 * h - 0.1 + math.tanh(0.7 * memory + 0.3))
        expected = o * math.tanh(memory), memory

        assert step(cell, x, h, c) == pytest.approx(expected, abs=1e-12)
        h, c = expected


def test_working_memory_connections_mix_units():
    cell = WMCLSTMCell(1, 2, dtype=torch.float64)
    perturb(cell)
    matrix, x, h, c = numbers(cell), [1.3], [0.3, -0.8], [1.0, -0.5]

    a = total(times(matrix["weight_ih"], x), times(matrix["weight_hh"], h))
    a = total(a, matrix["bias_ih"], matrix["bias_hh"])

    def gate(rows, seen, memory):
        e = total(times(matrix["weight_cg"][seen], memory), matrix["bias_cg"][seen])
        return each(lambda a, e: sigmoid(a + math.tanh(e)), a[rows], e)

    i, f = gate(slice(0, 2), slice(0, 2), c), gate(slice(2, 4), slice(2, 4), c)
    memory = [f[k] * c[k] + i[k] * math.tanh(a[4 + k]) for k in range(2)]
    o = gate(slice(6, 8), slice(4, 6), memory)

    assert after(cell, x, h, c)[1] == pytest.approx(memory, abs=1e-12)
    assert after(cell, x, h, c)[0] == pytest.approx([o[k] * math.tanh(memory[k]) for k in range(2)])


def test_working_memory_connections_without_biases_have_none():
    assert WMCLSTMCell(3, 4, bias=False).bias_cg is None
