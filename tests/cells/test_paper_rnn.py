"""Plain recurrent networks against their papers, in plain floats."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch

from seqnets.cells import (
    AntisymmetricRNNCell,
    FastGRNNCell,
    FastRNNCell,
    GatedAntisymmetricRNNCell,
    IndRNNCell,
    IRNNCell,
    LipschitzRNNCell,
    SCRNCell,
    chrono,
)
from seqnets.cells.redrawing import redraw
from seqnets.errors import ConfigError
from seqnets.testing import check_cell, one_unit, step

from .plain import after, each, numbers, sigmoid, times, total

XS = (2.0, -0.7, 0.4)
ONE = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (-0.3,)}
LEARNED = "parametrizations.weight_hh.original"
ANTISYMMETRIC = (AntisymmetricRNNCell, GatedAntisymmetricRNNCell)
COMPUTED = (*ANTISYMMETRIC, LipschitzRNNCell)


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def test_irnn_follows_its_paper():
    cell = one_unit(IRNNCell, **ONE)
    h = 1.5

    for x in XS:
        expected = max(0.0, 0.5 * x + 0.1 + 0.7 * h - 0.3)

        assert step(cell, x, h) == near(expected)
        h = expected


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_irnn_starts_from_the_identity_and_without_biases(scale):
    cell = IRNNCell(3, 4, scale=scale)

    assert torch.equal(cell.weight_hh, scale * torch.eye(4))
    assert not cell.bias_ih.any()
    assert not cell.bias_hh.any()


def test_indrnn_follows_its_paper():
    cell = one_unit(IndRNNCell, w=(0.5,), b=(0.1,), u_h=0.7)
    h = 1.5

    for x in XS:
        expected = max(0.0, 0.5 * x + 0.1 + 0.7 * h)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_indrnn_can_use_tanh():
    cell = one_unit(partial(IndRNNCell, nonlinearity="tanh"), w=(0.5,), b=(0.1,), u_h=0.7)

    assert step(cell, 2.0, -1.5) == near(math.tanh(0.5 * 2.0 + 0.1 - 0.7 * 1.5))


def test_units_of_indrnn_are_independent():
    cell = IndRNNCell(3, 4)
    x, h = torch.randn(1, 3), torch.rand(4, requires_grad=True)

    jacobian = torch.autograd.functional.jacobian(lambda h: cell(x, (h[None],))[0][0], h)

    assert torch.equal(jacobian, jacobian.diagonal().diag())
    assert ((cell.u_h >= 0) & (cell.u_h < 1)).all()


def test_antisymmetric_network_follows_its_paper():
    cell = one_unit(AntisymmetricRNNCell, w=(0.5,), b=(0.1,), d=(-0.3,), **{LEARNED: 0.7})
    h = -1.5

    for x in XS:
        expected = h + 0.1 * math.tanh(0.5 * x + 0.1 + (0.7 - 0.7 - 0.01) * h - 0.3)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_gated_antisymmetric_network_follows_its_paper():
    given = {"w": (0.5, -0.9), "b": (0.1, 0.4), "d": (-0.3,), LEARNED: 0.7}
    cell = one_unit(GatedAntisymmetricRNNCell, **given)
    h = -1.5

    for x in XS:
        z = sigmoid(0.5 * x + 0.1 - 0.01 * h - 0.3)
        expected = h + 0.1 * z * math.tanh(-0.9 * x + 0.4 - 0.01 * h - 0.3)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_antisymmetric_network_of_two_units_follows_its_paper():
    cell = AntisymmetricRNNCell(1, 2, epsilon=0.2, gamma=0.05, dtype=torch.float64)
    (a, b), (c, d) = cell.parametrizations.weight_hh.original.tolist()
    p, h = numbers(cell), [0.3, -0.8]

    m = [[a - a - 0.05, b - c], [c - b, d - d - 0.05]]
    squashed = each(math.tanh, total(times(p["weight_ih"], [2.0]), times(m, h)))

    assert after(cell, [2.0], h)[0] == near([s + 0.2 * n for s, n in zip(h, squashed, strict=True)])


@pytest.mark.parametrize("cell_cls", ANTISYMMETRIC)
def test_eigenvalues_of_an_antisymmetric_network_have_the_diffusion_as_real_part(cell_cls):
    cell = cell_cls(3, 5, gamma=0.3, dtype=torch.float64)

    eigenvalues = torch.linalg.eigvals(cell.weight_hh)

    torch.testing.assert_close(eigenvalues.real, torch.full((5,), -0.3).double())
    assert eigenvalues.imag.abs().max() > 0.1


@pytest.mark.parametrize("cell_cls", COMPUTED)
def test_reset_parameters_draws_a_new_computed_matrix(cell_cls):
    cell = cell_cls(3, 4)
    before = cell.weight_hh

    redraw(cell)

    assert not torch.equal(cell.weight_hh, before)
    assert cell.weight_hh.triu(1).any()


@pytest.mark.parametrize("cell_cls", COMPUTED)
def test_copies_and_pickles_of_a_computed_matrix_learn_apart(cell_cls):
    cell = cell_cls(3, 4)
    x = torch.randn(2, 3)

    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(cell))))):
        assert torch.equal(twin(x)[0], cell(x)[0])
        assert isinstance(twin, cell_cls)
        learned = twin.parametrizations.weight_hh.original
        learned.data.add_(torch.ones_like(learned).triu())
        assert not torch.equal(twin(x, (x.new_ones(2, 4),))[0], cell(x, (x.new_ones(2, 4),))[0])


@pytest.mark.parametrize("cell_cls", COMPUTED)
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0, expected a number above 0"),
        ({"epsilon": float("nan")}, "epsilon is nan, expected a number above 0"),
        ({"gamma": -0.1}, "gamma is -0.1, expected a number of at least 0"),
    ],
)
def test_unstable_antisymmetric_networks_are_refused(cell_cls, option, message):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: {message}"):
        cell_cls(3, 4, **option)


def test_lipschitz_network_follows_its_paper():
    given = {"w": (0.5,), "b": (0.1,), "d": (0.2, -0.3), LEARNED: (0.7, -0.4)}
    cell = one_unit(LipschitzRNNCell, **given)
    h = -1.5

    for x in XS:
        a, m = 0.35 * 2 * 0.7 - 0.001, 0.35 * 2 * -0.4 - 0.001
        expected = h + 0.01 * (a * h + 0.2 + math.tanh(0.5 * x + 0.1 + m * h - 0.3))

        assert step(cell, x, h) == near(expected)
        h = expected


def test_lipschitz_network_of_two_units_follows_its_paper():
    cell = LipschitzRNNCell(1, 2, epsilon=0.2, beta=0.8, gamma=0.05, dtype=torch.float64)
    learned, p, h = cell.parametrizations.weight_hh.original.tolist(), numbers(cell), [0.3, -0.8]

    def mixed(rows):
        (a, b), (c, d) = rows
        return [
            [0.2 * 2 * a - 0.05, 0.2 * (b + c) + 0.8 * (b - c)],
            [0.2 * (c + b) + 0.8 * (c - b), 0.2 * 2 * d - 0.05],
        ]

    straight = times(mixed(learned[:2]), h)
    bent = each(math.tanh, total(times(p["weight_ih"], [2.0]), times(mixed(learned[2:]), h)))

    expected = each(lambda s, a, n: s + 0.2 * (a + n), h, straight, bent)
    assert after(cell, [2.0], h)[0] == near(expected)


def test_how_antisymmetric_a_lipschitz_network_is_must_be_a_share():
    for beta in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=f"LipschitzRNNCell: beta is {beta}, expected a numb"):
            LipschitzRNNCell(3, 4, beta=beta)


def test_a_lipschitz_network_starts_with_small_matrices():
    cell = LipschitzRNNCell(3, 200)

    assert cell.parametrizations.weight_hh.original.std().item() == pytest.approx(1 / 200, rel=0.02)


def test_a_cell_with_a_computed_matrix_goes_by_its_own_name():
    cell = LipschitzRNNCell(3, 4)

    assert repr(cell).startswith("LipschitzRNNCell(")
    with pytest.raises(ConfigError, match="chrono: LipschitzRNNCell has no biased gates"):
        chrono(cell, 5)


def test_structurally_constrained_network_follows_its_paper():
    cell = one_unit(SCRNCell, **ONE, weight_xs=0.9, weight_sh=-1.3)
    h, s = state = -1.5, 0.6

    for x in XS:
        s = 0.05 * 0.9 * x + 0.95 * s
        h = sigmoid(0.5 * x + 0.1 + 0.7 * h - 0.3 - 1.3 * s)

        assert step(cell, x, *state) == near((h, s))
        state = h, s


def test_the_slow_average_has_a_width_of_its_own_and_reads_the_input_alone():
    cell = SCRNCell(3, 2, context_size=4, alpha=0.6, dtype=torch.float64)
    p, x, h, s = numbers(cell), [0.7, -1.2, 0.4], [0.3, -0.8], [0.6, 0.1, -0.5, 0.9]

    slow = each(lambda a, s: 0.4 * a + 0.6 * s, times(p["weight_xs"], x), s)
    a = total(times(p["weight_ih"], x), times(p["weight_hh"], h), times(p["weight_sh"], slow))

    assert after(cell, x, h, s)[0] == near(each(sigmoid, a))
    assert after(cell, x, h, s)[1] == near(slow)
    assert cell.state_sizes == (2, 4)


@pytest.mark.parametrize("alpha", [0.0, 1.0, float("nan"), "0.5"])
def test_a_slow_average_neither_stands_still_nor_forgets_at_once(alpha):
    with pytest.raises(ConfigError, match=f"SCRNCell: alpha is {alpha!r}, expected a number above"):
        SCRNCell(3, 4, alpha=alpha)


def test_a_slow_average_of_no_units_is_refused():
    with pytest.raises(ConfigError, match="SCRNCell: context_size is 0, expected at least 1"):
        SCRNCell(3, 4, context_size=0)
    with pytest.raises(ConfigError, match="SCRNCell: hidden_size is 0, expected at least 1"):
        SCRNCell(3, 0)


def test_fastrnn_follows_its_paper():
    cell = one_unit(FastRNNCell, **ONE, alpha=-1.2, beta=0.8)
    h = -1.5

    for x in XS:
        n = math.tanh(0.5 * x + 0.1 + 0.7 * h - 0.3)
        expected = sigmoid(-1.2) * n + sigmoid(0.8) * h

        assert step(cell, x, h) == near(expected)
        h = expected


def test_fastgrnn_follows_its_paper():
    cell = one_unit(FastGRNNCell, **ONE, b_z=0.9, zeta=0.6, nu=-1.4)
    h = -1.5

    for x in XS:
        product = 0.5 * x + 0.7 * h
        b_h, b_z = 0.1 - 0.3, 0.1 - 0.3 + 0.9
        z = sigmoid(product + b_z)
        n = math.tanh(product + b_h)
        expected = (sigmoid(0.6) * (1 - z) + sigmoid(-1.4)) * n + z * h

        assert step(cell, x, h) == near(expected)
        h = expected


def test_fastgrnn_without_biases_has_none_for_its_gate():
    assert FastGRNNCell(3, 4, bias=False).b_z is None
    assert [n for n, p in FastGRNNCell(3, 4, bias=False).named_parameters() if p.numel() == 4] == []


@pytest.mark.parametrize("cell_cls", [FastRNNCell, FastGRNNCell])
def test_the_weighting_adds_two_parameters(cell_cls):
    alike = sum(p.numel() for p in IRNNCell(3, 4, bias=False).parameters())

    assert sum(p.numel() for p in cell_cls(3, 4, bias=False).parameters()) == alike + 2


def test_indrnn_with_tanh_obeys_the_laws_of_recurrence():
    check_cell(partial(IndRNNCell, hidden_size=4, nonlinearity="tanh"))
