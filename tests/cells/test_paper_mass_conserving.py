"""Mass-conserving LSTMs against their paper, in plain floats, and what they conserve."""

import math
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import MassConservingLSTMCell
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit
from seqnets.testing.laws import perturb

from .plain import after, each, numbers, sigmoid, times, total


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def softmax(numbers):
    weights = [math.exp(a) for a in numbers]
    return [weight / sum(weights) for weight in weights]


def massed_one_unit(cell_cls, **given):
    """As ``one_unit``, with one feature beside the mass."""

    def make(input_size, hidden_size, **options):
        return cell_cls(input_size + 1, hidden_size, **options)

    return one_unit(make, **given)


@pytest.mark.parametrize("c", [0.9, 0.0, -0.4])
def test_mass_conserving_lstm_follows_its_paper(c):
    spread = {"spread_ih": (0.8, -0.6), "spread_hh": (0.9, 0.4), "spread_bias": (0.3, -0.2)}
    given = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (-0.3,), **spread}
    cell = massed_one_unit(MassConservingLSTMCell, **given)

    for a, x in ((2.0, 0.6), (-0.7, 0.0), (0.4, 1.9)):
        p = math.copysign(1, c) if c else 0.0
        o = sigmoid(0.5 * a + 0.1 + 0.7 * p - 0.3)
        held = c + x  # all shares of one unit are 1

        assert after(cell, [a, x], [-1.5], [c]) == [near([o * held]), near([(1 - o) * held])]
        c = (1 - o) * held


def test_masses_are_spread_over_units_as_their_paper_says():
    cell = MassConservingLSTMCell(5, 3, mass_size=2, dtype=torch.float64)
    perturb(cell)
    given, a, x, c = numbers(cell), [1.3, -0.8, 0.4], [0.7, 1.9], [0.3, 0.0, 1.1]

    p = [c_k / sum(c) for c_k in c]
    o = total(times(given["weight_ih"], a), given["bias_ih"], times(given["weight_hh"], p))
    o = each(sigmoid, total(o, given["bias_hh"]))
    spread = total(times(given["spread_ih"], a), given["spread_bias"], times(given["spread_hh"], p))
    shares = [softmax(spread[3 * k : 3 * k + 3]) for k in range(5)]  # of two masses, three units
    held = [sum(shares[k][unit] * mass for k, mass in enumerate(x + c)) for unit in range(3)]
    expected = [[o[k] * held[k] for k in range(3)], [(1 - o[k]) * held[k] for k in range(3)]]

    assert after(cell, a + x, [0.0] * 3, c) == [near(part) for part in expected]


def test_what_enters_is_stored_or_let_out():
    cell = MassConservingLSTMCell(5, 6, mass_size=2, dtype=torch.float64)
    perturb(cell)
    x, c = torch.rand(3, 20, 5, dtype=torch.float64), torch.rand(3, 6, dtype=torch.float64)

    y, (_, stored) = unroll(cell, x, (torch.zeros_like(c), c))

    torch.testing.assert_close(
        y.sum((1, 2)) + stored.sum(1), c.sum(1) + x[..., 3:].sum((1, 2)), rtol=0, atol=1e-12
    )
    assert y.min() > 0
    assert stored.min() > 0


@pytest.mark.parametrize("backend", ["reference", "c"])
def test_gradients_are_finite_when_nothing_has_entered_for_long(backend):
    cell = MassConservingLSTMCell(3, 4)
    with torch.no_grad():
        cell.bias_ih.zero_()  # half of what is held is let out
    x = torch.randn(2, 250, 3)
    x[:, :, 2] = 0
    x[:, [0, -1], 2] = 1.0  # until less is left than float32 has normal numbers for
    x.requires_grad_()

    unroll(cell, x, backend=backend)[0].sum().backward()

    assert all(given.grad.isfinite().all() for given in (x, *cell.parameters()))


def test_mass_conserving_lstm_starts_by_keeping_what_it_holds_where_it_is():
    cell = MassConservingLSTMCell(3, 4)

    assert cell.bias_ih.eq(-3).all()
    assert torch.equal(cell.spread_bias, torch.cat([torch.zeros(4), torch.eye(4).flatten()]))


@pytest.mark.parametrize("masses", [1, 2])
def test_mass_conserving_lstm_obeys_the_laws_and_runs_in_the_loops(masses):
    make = partial(MassConservingLSTMCell, hidden_size=3, mass_size=masses)

    check_cell(make)
    assert check_backend(make(4), "c", steps=(1, 5)) == {}


@pytest.mark.parametrize(
    ("inputs", "masses", "message"),
    [
        (1, 1, "input_size is 1 with mass_size=1, expected at least 2"),
        (3, 3, "input_size is 3 with mass_size=3, expected at least 4"),
        (3, 0, "mass_size is 0, expected at least 1"),
    ],
)
def test_masses_without_other_features_are_refused(inputs, masses, message):
    with pytest.raises(ConfigError, match=f"MassConservingLSTMCell: {message}"):
        MassConservingLSTMCell(inputs, 4, mass_size=masses)
