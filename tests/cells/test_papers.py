"""Cells against their papers in plain floats, without torch in the expected values."""

import math
from functools import partial
from pathlib import Path

import pytest

from seqnets.cells import (
    CoupledLSTMCell,
    GRUCell,
    LSTMCell,
    NoForgetLSTMCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    RNNCell,
)
from seqnets.testing import one_unit, step

from .final import FINAL_CELLS

XS = (2.0, -0.7)
THREE = {
    "w": (0.5, -0.3, 0.8),
    "u": (0.7, 0.2, -0.6),
    "b": (0.1, -0.4, 0.3),
    "d": (0.05, 0.4, -0.2),
}
FOUR = {
    "w": (0.5, -0.3, 0.8, 0.9),
    "u": (0.7, 0.2, -0.6, 0.4),
    "b": (0.1, -0.4, 0.3, 0.6),
    "d": (0.05, 0.4, -0.2, -0.1),
}


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def test_every_cell_has_a_test_against_its_paper():
    files = Path(__file__).parent.glob("test_paper*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)

    assert [c.__name__ for c in FINAL_CELLS if f"one_unit({c.__name__}, " not in text] == []


def test_elman_network_follows_its_paper():
    cell = one_unit(RNNCell, w=(0.5,), u=(0.7,), b=(0.1,), d=(-0.3,))
    h = -1.5

    for x in XS:
        after = math.tanh(0.5 * x + 0.1 + 0.7 * h - 0.3)

        assert step(cell, x, h) == near(after)
        h = after


@pytest.mark.parametrize(("x", "after"), [(2.0, 0.5 * 2.0 + 0.7 * 1.5), (-4.0, 0.0)])
def test_relu_network_cuts_off_what_is_negative(x, after):
    cell = one_unit(partial(RNNCell, nonlinearity="relu"), w=(0.5,), u=(0.7,))

    assert step(cell, x, 1.5) == near(after)


def test_gru_follows_torch_documentation():
    cell = one_unit(GRUCell, **THREE)
    h = -1.5

    for x in XS:
        r = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        z = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        n = math.tanh(0.8 * x + 0.3 + r * (-0.6 * h - 0.2))
        after = (1 - z) * n + z * h

        assert step(cell, x, h) == near(after)
        h = after


def test_original_gru_follows_its_paper():
    cell = one_unit(OriginalGRUCell, **THREE)
    h = -1.5

    for x in XS:
        r = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        z = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        n = math.tanh(0.8 * x + 0.3 - 0.6 * (r * h) - 0.2)
        after = z * h + (1 - z) * n

        assert step(cell, x, h) == near(after)
        h = after


def test_lstm_follows_its_paper():
    cell = one_unit(LSTMCell, **FOUR)
    h, c = -1.5, 0.9

    for x in XS:
        i = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        f = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        g = math.tanh(0.8 * x + 0.3 - 0.6 * h - 0.2)
        o = sigmoid(0.9 * x + 0.6 + 0.4 * h - 0.1)
        memory = f * c + i * g
        after = o * math.tanh(memory), memory

        assert step(cell, x, h, c) == near(after)
        h, c = after


def test_peephole_lstm_follows_its_paper():
    cell = one_unit(PeepholeLSTMCell, **FOUR, p_i=0.35, p_f=-0.25, p_o=0.65)
    h, c = -1.5, 0.9

    for x in XS:
        i = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05 + 0.35 * c)
        f = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4 - 0.25 * c)
        g = math.tanh(0.8 * x + 0.3 - 0.6 * h - 0.2)
        memory = f * c + i * g
        o = sigmoid(0.9 * x + 0.6 + 0.4 * h - 0.1 + 0.65 * memory)
        after = o * math.tanh(memory), memory

        assert step(cell, x, h, c) == near(after)
        h, c = after


def test_coupled_lstm_follows_its_paper():
    cell = one_unit(CoupledLSTMCell, **THREE)
    h, c = -1.5, 0.9

    for x in XS:
        i = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        g = math.tanh(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        o = sigmoid(0.8 * x + 0.3 - 0.6 * h - 0.2)
        memory = (1 - i) * c + i * g
        after = o * math.tanh(memory), memory

        assert step(cell, x, h, c) == near(after)
        h, c = after


def test_lstm_without_forget_gate_follows_its_paper():
    cell = one_unit(NoForgetLSTMCell, **THREE)
    h, c = -1.5, 0.9

    for x in XS:
        i = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        g = math.tanh(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        o = sigmoid(0.8 * x + 0.3 - 0.6 * h - 0.2)
        memory = c + i * g
        after = o * math.tanh(memory), memory

        assert step(cell, x, h, c) == near(after)
        h, c = after
