"""Standardisation of columns, and filling of missing values."""

from __future__ import annotations

import json
import math
import statistics

import pytest
import torch

from seqnets.datasets.files.inputs import fill
from seqnets.datasets.scaling import Scaling

NAN = math.nan


def test_columns_get_mean_0_and_deviation_1_and_come_back():
    column = [3.0, 5.0, 10.0, 1.5]
    values = torch.tensor([column, [1000 * v for v in column]]).T
    scaling = Scaling.of(values)
    mean, deviation = statistics.mean(column), statistics.pstdev(column)

    expected = [(v - mean) / deviation for v in column]
    assert scaling(values)[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert scaling(values)[:, 1].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(scaling.undo(scaling(values)), values.double())


def test_what_is_shown_has_the_digits_that_a_scaled_number_keeps():
    scaling = Scaling.of(torch.tensor([[-0.3], [0.1], [0.5]], dtype=torch.float64))

    assert scaling.undo(scaling(torch.zeros(1))).item() != 0
    assert scaling.shown(scaling(torch.zeros(1))) == [0]
    assert str(scaling.shown(scaling(torch.full((1,), -1e-9)))) == "[0.0]"
    assert scaling.shown(scaling(torch.tensor([0.25]))) == [0.25]


def test_missing_values_are_ignored_and_stay_missing():
    scaling = Scaling.of(torch.tensor([[1.0], [NAN], [3.0]]))

    assert (scaling.mean.tolist(), scaling.deviation.tolist()) == ([2], [1])
    assert scaling(torch.tensor([[NAN], [3.0]])).isnan().flatten().tolist() == [True, False]


def test_a_constant_column_is_only_shifted():
    values = torch.full((3, 1), 0.1)

    assert Scaling.of(values).deviation.tolist() == [1]
    assert Scaling.of(values)(values + 2).flatten().tolist() == pytest.approx([2] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -0.3, 1.1, 7.7, 1e-3, 1.7e9])
def test_a_constant_column_is_known_whatever_its_mean_is_rounded_to(value, dtype):
    for count in (3, 999, 12_345):
        values = torch.full((count, 1), value, dtype=dtype)

        assert Scaling.of(values).deviation.tolist() == [1]


def test_a_column_that_differs_by_rounding_alone_is_constant():
    rounded = torch.tensor([[0.3], [0.1 + 0.2]], dtype=torch.float64)
    differs = torch.tensor([[1e9], [1e9 + 1]], dtype=torch.float64)

    assert Scaling.of(rounded).deviation.tolist() == [1]
    assert Scaling.of(differs).deviation.tolist() == [0.5]


def test_own_units_are_not_rounded_to_float32():
    seconds = 1_700_000_000 + torch.arange(30, dtype=torch.float64)[:, None]
    scaling = Scaling.of(seconds)

    torch.testing.assert_close(scaling.undo(scaling(seconds)), seconds, atol=1e-5, rtol=0)


def test_plain_values_give_the_same_scaling():
    scaling = Scaling.of(torch.rand(10, 3))
    again = Scaling.read(json.loads(json.dumps(scaling.plain())))

    assert torch.equal(again.mean, scaling.mean)
    assert torch.equal(again.deviation, scaling.deviation)


def test_forward_filling_does_not_cross_sequences():
    x = torch.tensor([[NAN, 1], [2, NAN], [NAN, NAN], [NAN, 5], [6, NAN]])
    lengths = torch.tensor([3, 2])

    assert fill(x, lengths, forward=True).tolist() == [[0, 1], [2, 1], [2, 1], [0, 5], [6, 5]]
    assert fill(x, lengths, forward=False).tolist() == [[0, 1], [2, 0], [0, 0], [0, 5], [6, 0]]
