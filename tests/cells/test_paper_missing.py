"""GRU-D against its paper, in plain floats, and values that are missing."""

import math
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import GRUDCell, LayerNorm, Zoneout
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit, step
from tests.slow import mostly_slow

from .plain import sigmoid

NAN = math.nan
U, D, B = (0.7, 0.2, -0.6), (0.05, 0.4, -0.2), (0.1, -0.4, 0.3)
W = ((0.5, -0.9), (-0.3, 0.45), (0.8, 0.35))  # of the value and of the mask, by gate
RATES = {"w_gamma": 0.3, "b_gamma": 0.1, "weight_gamma": 0.25, "bias_gamma": -0.15}
GIVEN = {"w": [n for row in W for n in row], "u": U, "b": B, "d": D, **RATES}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def after(x, elapsed, h, last, before, seen_before, rates=RATES):
    """One step as the paper has it: x is None where it is missing, and delta from step to step."""
    m = 0.0 if x is None else 1.0
    delta = elapsed + (0.0 if seen_before else before)
    fade = math.exp(-max(0.0, rates["w_gamma"] * delta + rates["b_gamma"]))
    value = x if m else fade * last
    h = h * math.exp(-max(0.0, rates["weight_gamma"] * delta + rates["bias_gamma"]))
    r = sigmoid(0.5 * value - 0.9 * m + 0.1 + 0.7 * h + 0.05)
    z = sigmoid(-0.3 * value + 0.45 * m - 0.4 + 0.2 * h + 0.4)
    n = math.tanh(0.8 * value + 0.35 * m + 0.3 - 0.6 * (r * h) - 0.2)
    return (1 - z) * h + z * n, x if m else last, delta


def follows(cell, xs, times=None):
    h, last, delta, seen = -0.5, 0.0, 0.0, False
    state = (h, last, delta)
    for x, elapsed in zip(xs, times or [1.0] * len(xs), strict=True):
        h, last, delta = after(x, elapsed, h, last, delta, seen)
        seen = x is not None
        row = [NAN if x is None else x, *([elapsed] if times else [])]
        rows = [torch.tensor([part], dtype=torch.float64) for part in (row, *([s] for s in state))]

        state = tuple(part.item() for part in cell(rows[0], tuple(rows[1:]))[1])

        assert state == near((h, last, 0.0 if seen else delta))


XS = (2.0, None, None, -0.7, 0.4, None)


def test_grud_follows_its_paper():
    follows(one_unit(GRUDCell, **GIVEN), XS)


def test_grud_fades_by_the_time_elapsed():
    def timed(input_size, hidden_size, **options):
        return GRUDCell(input_size + 1, hidden_size, timed=True, **options)

    follows(one_unit(timed, **GIVEN), XS, times=(0.0, 0.3, 2.5, 0.1, 1.0, 4.0))


def test_a_negative_rate_does_not_let_values_grow():
    rates = {"w_gamma": -0.3, "b_gamma": 0.1, "weight_gamma": -0.25, "bias_gamma": -0.15}
    cell = one_unit(GRUDCell, **{**GIVEN, **rates})

    h, _, _ = after(None, 1.0, 0.5, 2.0, 3.0, False, rates)

    assert step(cell, NAN, 0.5, 2.0, 3.0)[0] == near(h)
    assert step(cell, NAN, 0.5, 2.0, 9.0)[0] == near(h)


def test_variables_fade_each_by_itself():
    cell = GRUDCell(2, 3, dtype=torch.float64)
    x = torch.tensor([[[1.0, 2.0], [NAN, 5.0], [NAN, NAN]]], dtype=torch.float64)

    _, (_, last, missing) = unroll(cell, x)

    assert last.tolist() == [[1.0, 5.0]]
    assert missing.tolist() == [[2.0, 1.0]]


def test_a_variable_that_was_never_seen_counts_as_its_mean():
    cell = GRUDCell(1, 4, dtype=torch.float64)
    never, zero = torch.full((1, 1, 1), NAN, dtype=torch.float64), torch.zeros(1, 1, 1).double()

    with torch.no_grad():
        cell.weight_ih[:, 1] = 0  # of the mask, which tells the two apart

    torch.testing.assert_close(unroll(cell, never)[0], unroll(cell, zero)[0])


class Gappy(GRUDCell):
    """A cell for which some random numbers are missing, and all times are forwards."""

    def project(self, x):
        values, times = x[..., : self.variables], x[..., self.variables :]
        values = torch.where(values > 0.3, torch.full_like(values, NAN), values)
        return super().project(torch.cat([values, times.abs()], -1))


TIMED = partial(Gappy, timed=True)
GAPPY = (Gappy, TIMED, partial(Gappy, bias=False))


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("make", mostly_slow(GAPPY, [TIMED]))
def test_a_cell_whose_values_are_missing_obeys_all_laws_of_recurrence(make):
    check_cell(partial(make, hidden_size=4))


@pytest.mark.parametrize("backend", ["c", "eager"])
@pytest.mark.parametrize("make", mostly_slow(GAPPY, [TIMED]))
def test_a_cell_whose_values_are_missing_runs_in_the_loops(make, backend):
    assert check_backend(make(3, 5), backend, steps=(1, 5), dtypes=(torch.float64,)) == {}


def test_gradients_of_missing_values_are_zero_and_of_others_finite():
    cell = GRUDCell(2, 3)
    x = torch.randn(2, 6, 2)
    x[:, ::2, 0] = NAN
    x.requires_grad_()

    unroll(cell, x)[0].sum().backward()

    assert x.grad.isfinite().all()
    assert not x.grad[:, ::2, 0].any()
    assert x.grad[:, 1::2].all()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


def test_options_that_count_on_states_leave_the_time_alone():
    cell = Zoneout(GRUDCell(2, 3), p=0.9)

    _, (_, _, missing) = unroll(cell, torch.full((1, 4, 2), NAN))

    assert missing.tolist() == [[4.0, 4.0]]


def test_layer_norm_cannot_normalise_what_the_step_projects():
    with pytest.raises(ConfigError, match="LayerNorm: GRUDCell projects the input in the step"):
        LayerNorm(GRUDCell(3, 4))
