"""How far NaN and infinity reach in matrix memories: as far as in the plain loop."""

import pytest
import torch
from torch.func import vmap

from seqnets import unroll
from seqnets.cells import GatedDeltaNetCell, LearnedState, MLSTMCell
from seqnets.engine.matrix_memory import chunks
from seqnets.testing.laws import perturb
from tests.cells.final import MATRIX_CELLS
from tests.engine.test_matrix_memory import (
    ErasingCell,
    FadingCell,
    ReadFirstCell,
    WeightsGivenCell,
)

B, T, I = 3, 12, 3
NONE = [float("nan"), float("inf"), -float("inf")]


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "_STEPS", 4)


def make(cell_cls):
    cell = cell_cls(I, 6, num_heads=2, key_size=4, dtype=torch.float64)
    perturb(cell)
    return cell


def alone(cell, x, **options):
    """All steps at once, as eager code runs them: results are looked at."""
    return unroll(cell, x, backend="scan", **options)


def transformed(cell, x, **options):
    """All steps at once, where results cannot be looked at."""
    return vmap(lambda x: unroll(cell, x, backend="scan", **options), out_dims=0)(x[None])


def compiled(cell, x, **options):
    """All steps at once, as the operator."""
    return torch.compile(unroll, fullgraph=True, backend="eager")(cell, x, **options)


def numbers(found, expected):
    """Where both have numbers, which are to be equal; and each where it has none."""
    y, expected_y = found[0].reshape(expected[0].shape), expected[0]
    torch.testing.assert_close(y.isfinite(), expected_y.isfinite())
    torch.testing.assert_close(y.nan_to_num(0, 0, 0), expected_y.nan_to_num(0, 0, 0))
    return y


@pytest.mark.parametrize("way", [alone, transformed])
@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_no_step_before_and_no_other_row_is_reached(cell_cls, value, way):
    cell, x = make(cell_cls), torch.randn(B, T, I, dtype=torch.float64)
    clean = unroll(cell, x)[0]
    x[1, 5] = value

    y = way(cell, x)[0].reshape(clean.shape)

    torch.testing.assert_close(y[[0, 2]], clean[[0, 2]])
    torch.testing.assert_close(y[1, :5], clean[1, :5])
    assert not y[1, 5:].isfinite().all(-1).any()


@pytest.mark.parametrize("way", [alone, transformed, compiled])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_reset_ends_it_at_once(way, reverse):
    cell, x = make(MLSTMCell), torch.randn(B, T, I, dtype=torch.float64)
    x[0, 1], x[1, 6], x[2, 11] = torch.nan, torch.inf, torch.nan
    options = {
        "lengths": torch.tensor([12, 10, 7]),
        "resets": (torch.arange(T) % 4 == 3).expand(B, T),
        "reverse": reverse,
    }

    y, (_, *memory) = way(cell, x, **options)
    expected = unroll(cell, x, backend="reference", **options)

    y = numbers((y,), expected)
    assert 0 < (~y.isfinite()).any(-1).sum() < 10
    found = [part.reshape(other.shape) for part, other in zip(memory, expected[1][1:], strict=True)]
    torch.testing.assert_close(found, list(expected[1][1:]), equal_nan=True)


@pytest.mark.parametrize("place", range(18))
@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("cell_cls", [FadingCell, ReadFirstCell])
def test_each_part_of_what_a_step_does_reaches_what_it_reaches_in_the_plain_loop(
    cell_cls, place, value
):
    cell = cell_cls(18, 6, num_heads=2, key_size=2, dtype=torch.float64)
    x = torch.randn(2, T, 18, dtype=torch.float64)
    x[..., 14:] = -x[..., 14:].abs()
    x[0, 3, place] = value

    for begins in ([], [6], [0, 3]):
        at = torch.isin(torch.arange(T), torch.tensor(begins)).expand(2, T)
        options = {"resets": at} if begins else {}
        numbers(alone(cell, x, **options), unroll(cell, x, backend="reference", **options))


@pytest.mark.parametrize("place", range(14, 22))
@pytest.mark.parametrize("value", NONE)
def test_so_does_what_finds_and_takes_something_away(place, value):
    cell = ErasingCell(26, 6, num_heads=2, key_size=2, dtype=torch.float64)
    x = torch.randn(2, T, 26, dtype=torch.float64)
    x[..., 22:] = -x[..., 22:].abs()
    x[0, 3, place] = value

    numbers(alone(cell, x), unroll(cell, x, backend="reference"))


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("value", NONE)
def test_so_does_each_part_of_a_normalised_memory(place, value):
    cell = WeightsGivenCell(8, 2, key_size=2, dtype=torch.float64)
    x = torch.randn(1, T, 8, dtype=torch.float64)
    x[..., 6] = -x[..., 6].abs()
    x[0, 3, place] = value

    numbers(alone(cell, x), unroll(cell, x, backend="reference"))


@pytest.mark.parametrize(
    ("part", "value"), [*((part, torch.nan) for part in (1, 2, 3)), (1, torch.inf), (3, torch.inf)]
)
def test_a_state_that_is_no_number_lasts_until_a_reset(part, value):
    cell, x = make(MLSTMCell), torch.randn(2, T, I, dtype=torch.float64)
    state = [torch.randn(2, size, dtype=torch.float64) for size in cell.state_sizes]
    state[part][0, 0] = value
    resets = (torch.arange(T) == 5).expand(2, T)

    options = {"state": tuple(state), "resets": resets}
    y = numbers(alone(cell, x, **options), unroll(cell, x, backend="reference", **options))

    assert y[1].isfinite().all()
    assert y[0, 5:].isfinite().all()
    assert not y[0, :5].isfinite().all()


def test_a_start_that_is_no_number_reaches_what_a_reset_begins():
    cell = LearnedState(make(MLSTMCell))
    with torch.no_grad():
        cell.initial_C[0] = torch.nan
    x = torch.randn(2, T, I, dtype=torch.float64)
    state = tuple(torch.zeros(2, size, dtype=torch.float64) for size in cell.state_sizes)
    resets = torch.zeros(2, T, dtype=torch.bool)
    resets[0, 5] = True

    options = {"state": state, "resets": resets}
    y = numbers(alone(cell, x, **options), unroll(cell, x, backend="reference", **options))

    assert y[1].isfinite().all()
    assert not y[0, 5:].isfinite().all()


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_gradients_of_what_is_no_number_are_none(cell_cls):
    cell, x = make(cell_cls), torch.randn(2, T, I, dtype=torch.float64)
    x[0, 9] = torch.nan
    x.requires_grad_()

    (grad,) = torch.autograd.grad(unroll(cell, x)[0].square().sum(), x)

    assert not grad[0].isfinite().any()
    assert grad[1].isfinite().all()


@pytest.mark.parametrize("way", [alone, compiled])
def test_gradients_go_to_no_other_row_and_no_later_chunk(way):
    cell, x = make(GatedDeltaNetCell), torch.randn(2, T, I, dtype=torch.float64)
    x[0, 1] = torch.nan
    x.requires_grad_()
    resets = (torch.arange(T) == 3).expand(2, T)

    def numbers_of(run, **options):
        y, _ = run(cell, x, resets=resets, **options)
        (grad,) = torch.autograd.grad(y[:, 3:].square().sum(), x)
        return grad.isfinite().all(-1)

    found, plain = numbers_of(way), numbers_of(unroll, backend="reference")

    assert (plain >= found).all()
    assert found[1].all()
    assert found[0, 4:].all()
