"""Bistable cells against their paper, in plain floats."""

import math

import pytest
import torch

from seqnets import unroll
from seqnets.cells import BRCCell, NBRCCell
from seqnets.testing import one_unit, step

from .plain import sigmoid

XS = (2.0, -0.7)
THREE = {"w": (0.5, -0.3, 0.8), "b": (0.1, -0.4, 0.3)}


def test_bistable_cell_follows_its_paper():
    cell = one_unit(BRCCell, **THREE, w_a=0.7, w_c=-0.6)
    h = -1.5

    for x in XS:
        a = 1 + math.tanh(0.5 * x + 0.1 + 0.7 * h)
        c = sigmoid(-0.3 * x - 0.4 - 0.6 * h)
        expected = c * h + (1 - c) * math.tanh(0.8 * x + 0.3 + a * h)

        assert step(cell, x, h) == pytest.approx(expected, abs=1e-12)
        h = expected


def test_neuromodulated_bistable_cell_follows_its_paper():
    cell = one_unit(NBRCCell, **THREE, u=(0.7, -0.6), d=(0.05, 0.4))
    h = -1.5

    for x in XS:
        a = 1 + math.tanh(0.5 * x + 0.1 + 0.7 * h + 0.05)
        c = sigmoid(-0.3 * x - 0.4 - 0.6 * h + 0.4)
        expected = c * h + (1 - c) * math.tanh(0.8 * x + 0.3 + a * h)

        assert step(cell, x, h) == pytest.approx(expected, abs=1e-12)
        h = expected


@pytest.mark.parametrize(("gain", "latches"), [(-2.0, False), (2.0, True)])
def test_a_unit_latches_where_its_feedback_is_above_one(gain, latches):
    cell = one_unit(BRCCell, w=(0.0, 0.0, 0.0), b=(gain, 0.0, 0.0), w_a=0.0, w_c=0.0)
    x = torch.zeros(2, 300, 1, dtype=torch.float64)

    _, (h,) = unroll(cell, x, (torch.tensor([[0.3], [-0.3]], dtype=torch.float64),))

    up, down = h.flatten().tolist()
    assert up == pytest.approx(math.tanh((1 + math.tanh(gain)) * up), abs=1e-12)
    assert up == pytest.approx(-down)
    assert (up > 0.9) if latches else (up < 1e-12)


def test_units_of_a_bistable_cell_see_no_others_and_those_of_a_neuromodulated_one_do():
    x = torch.zeros(1, 1, 3)
    for cell, alone in ((BRCCell(3, 4), True), (NBRCCell(3, 4), False)):
        slopes = torch.autograd.functional.jacobian(
            lambda h, cell=cell: unroll(cell, x, (h,))[0][0, 0], torch.randn(1, 4)
        )[:, 0]

        assert bool((slopes - slopes.diag().diag()).any()) is not alone


def test_feedback_of_a_bistable_cell_starts_at_one():
    cell = BRCCell(3, 4)

    assert (cell.w_a == 1).all()
    assert (cell.w_c == 1).all()
