"""Gated units with fewer or other gates than the GRU's, against their papers, in plain floats."""

import math

import pytest
import torch

from seqnets import unroll
from seqnets.cells import LightGRUCell, MGUCell, MUT1Cell, MUT2Cell, MUT3Cell, UGRNNCell
from seqnets.errors import ConfigError
from seqnets.testing import one_unit, step
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total

TWO = {"w": (0.5, -0.3), "u": (0.7, 0.2), "b": (0.1, -0.4), "d": (0.05, 0.4)}
THREE = {
    "w": (0.5, -0.3, 0.8),
    "u": (0.7, 0.2, -0.6),
    "b": (0.1, -0.4, 0.3),
    "d": (0.05, 0.4, -0.2),
}


def holds(cell, equation):
    """Two steps of a cell with one unit are those of an equation."""
    h = -1.5
    for x in (2.0, -0.7):
        expected = equation(x, h)
        assert step(cell, x, h) == pytest.approx(expected, abs=1e-12)
        h = expected


def test_minimal_gated_unit_follows_its_paper_but_for_the_place_of_the_product():
    def equation(x, h):
        f = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        n = math.tanh(-0.3 * x - 0.4 + f * (0.2 * h + 0.4))
        return (1 - f) * h + f * n

    holds(one_unit(MGUCell, **TWO), equation)


def test_update_gate_network_follows_its_paper():
    def equation(x, h):
        g = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        c = math.tanh(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        return g * h + (1 - g) * c

    holds(one_unit(UGRNNCell, **TWO), equation)


def test_light_gru_follows_its_paper_without_batch_normalisation():
    def equation(x, h):
        z = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        n = max(0.0, -0.3 * x - 0.4 + 0.2 * h + 0.4)
        return z * h + (1 - z) * n

    cell = one_unit(LightGRUCell, **TWO)
    holds(cell, equation)
    assert step(cell, -9.0, 0.0) > 1  # a candidate beyond what tanh could write


def test_mut1_follows_its_paper_and_squashes_the_input_itself():
    cell = one_unit(MUT1Cell, **TWO)

    def equation(x, h):
        z = sigmoid(0.5 * x + 0.1)
        r = sigmoid(-0.3 * x - 0.4 + 0.7 * h + 0.05)
        return math.tanh(0.2 * (r * h) + math.tanh(x) + 0.4) * z + h * (1 - z)

    holds(cell, equation)


def test_mut2_follows_its_paper_and_resets_by_the_input_itself():
    cell = one_unit(MUT2Cell, w=(0.5, -0.3), u=(0.7, 0.2, -0.6), b=(0.1, -0.4), d=(0.05, 0.4, -0.2))

    def equation(x, h):
        z = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
        r = sigmoid(x + 0.2 * h + 0.4)
        return math.tanh(-0.6 * (r * h) - 0.2 - 0.3 * x - 0.4) * z + h * (1 - z)

    holds(cell, equation)


def test_mut3_follows_its_paper_and_updates_by_the_squashed_output():
    cell = one_unit(MUT3Cell, **THREE)

    def equation(x, h):
        z = sigmoid(0.5 * x + 0.1 + 0.7 * math.tanh(h) + 0.05)
        r = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
        return math.tanh(-0.6 * (r * h) - 0.2 + 0.8 * x + 0.3) * z + h * (1 - z)

    holds(cell, equation)


@pytest.mark.parametrize("cell_cls", [MUT1Cell, MUT2Cell, MUT3Cell])
def test_the_mutations_reset_before_the_product(cell_cls):
    cell = cell_cls(2, 2, dtype=torch.float64)
    perturb(cell)
    matrix = numbers(cell)
    x, h = [1.3, -0.4], [0.9, -0.8]

    def rows(table, names):
        return {k: table[2 * i : 2 * i + 2] for i, k in enumerate(names)}

    w = rows(total(times(matrix["weight_ih"], x), matrix["bias_ih"]), cell.inputs)
    U, d = rows(matrix["weight_hh"], cell.recurrent), rows(matrix["bias_hh"], cell.recurrent)
    if cell_cls is MUT1Cell:
        z, r = each(sigmoid, w["z"]), each(sigmoid, total(w["r"], times(U["r"], h), d["r"]))
        n = each(math.tanh, x)
    elif cell_cls is MUT2Cell:
        z = each(sigmoid, total(w["z"], times(U["z"], h), d["z"]))
        r, n = each(sigmoid, total(x, times(U["r"], h), d["r"])), w["n"]
    else:
        z = each(sigmoid, total(w["z"], times(U["z"], each(math.tanh, h)), d["z"]))
        r, n = each(sigmoid, total(w["r"], times(U["r"], h), d["r"])), w["n"]
    reset = each(lambda a, b: a * b, r, h)
    n = each(math.tanh, total(n, times(U["n"], reset), d["n"]))
    expected = each(lambda old, new, share: new * share + old * (1 - share), h, n, z)

    assert after(cell, x, h)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("cell_cls", "inputs", "recurrent"), [(MUT1Cell, 2, 2), (MUT2Cell, 2, 3)])
def test_gates_without_a_product_have_no_weights(cell_cls, inputs, recurrent):
    cell = cell_cls(4, 4)

    assert cell.weight_ih.shape == (4 * inputs, 4)
    assert cell.weight_hh.shape == (4 * recurrent, 4)


@pytest.mark.parametrize("cell_cls", [MUT1Cell, MUT2Cell])
def test_the_input_itself_has_to_be_as_wide_as_the_state(cell_cls):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: input_size is 3, expected hidden"):
        cell_cls(3, 4)


@pytest.mark.parametrize("cell_cls", [MUT1Cell, MUT2Cell])
def test_the_input_itself_gets_its_gradient(cell_cls):
    cell = cell_cls(2, 2, dtype=torch.float64)
    torch.nn.init.zeros_(cell.weight_ih)
    x = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)

    unroll(cell, x, (torch.ones(1, 2, dtype=torch.float64),))[0].sum().backward()

    assert x.grad.all()
