"""Leaky networks, Dale's law and echo state networks against their papers, in plain floats."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch

from seqnets import DeepRNN, Recurrent, explain, initializers, unroll
from seqnets.cells import (
    Activations,
    ConvLSTMCell,
    CTRNNCell,
    ExpRNNCell,
    GRUCell,
    IndRNNCell,
    LeakyRNNCell,
    LSTMCell,
    RNNCell,
    dale,
    optioned,
    orthogonal,
    reservoir,
)
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell, one_unit, step

from .plain import after, sigmoid

XS = (2.0, -0.7, 0.4)
ONE = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (-0.3,)}
FUNCTIONS = {"tanh": math.tanh, "relu": lambda a: max(0.0, a)}


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


@pytest.mark.parametrize("nonlinearity", FUNCTIONS)
def test_leaky_integrators_follow_their_paper(nonlinearity):
    cell = one_unit(partial(LeakyRNNCell, alpha=0.3, nonlinearity=nonlinearity), **ONE)
    h = -1.5

    for x in XS:
        rate = FUNCTIONS[nonlinearity](0.5 * x + 0.1 + 0.7 * h - 0.3)
        expected = 0.7 * h + 0.3 * rate

        assert step(cell, x, h) == near(expected)
        h = expected


def test_leaky_integrators_go_a_fifth_of_the_way_by_default():
    cell = one_unit(LeakyRNNCell, **ONE)

    assert step(cell, 2.0, 0.5) == near(0.4 + 0.2 * math.tanh(1.0 + 0.1 + 0.35 - 0.3))


def test_leaky_integrators_that_go_all_the_way_are_an_elman_network():
    leaky, plain = LeakyRNNCell(3, 4, alpha=1), RNNCell(3, 4)
    leaky.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 3)

    torch.testing.assert_close(unroll(leaky, x), unroll(plain, x))


@pytest.mark.parametrize("nonlinearity", FUNCTIONS)
def test_networks_of_currents_follow_their_paper(nonlinearity):
    cell = one_unit(partial(CTRNNCell, alpha=0.3, nonlinearity=nonlinearity), **ONE)
    r, x = 0.0, -0.9

    for u in XS:
        current = 0.7 * x + 0.3 * (0.5 * u + 0.1 + 0.7 * r - 0.3)
        expected = FUNCTIONS[nonlinearity](current), current

        assert step(cell, u, r, x) == near(expected)
        r, x = expected


def test_networks_of_currents_are_rectified_by_default():
    assert step(one_unit(CTRNNCell, **ONE), -9.0, 0.5, 0.5)[0] == 0


def test_rates_may_be_another_function_of_currents():
    cell = Activations(CTRNNCell(1, 1, dtype=torch.float64), candidate="sigmoid")

    y, (_, x) = cell(torch.tensor([[2.0]], dtype=torch.float64))

    assert y.item() == near(sigmoid(x.item()))


@pytest.mark.parametrize("cell_cls", [LeakyRNNCell, CTRNNCell])
@pytest.mark.parametrize("alpha", [0, 1.5, "fast"])
def test_units_that_stand_still_or_go_too_far_are_refused(cell_cls, alpha):
    with pytest.raises(ConfigError, match=f"{cell_cls.__name__}: alpha is {alpha!r}, expected"):
        cell_cls(3, 4, alpha=alpha)


def radii(cell):
    blocks = cell.weight_hh.detach().double().chunk(len(cell.recurrent))
    return [torch.linalg.eigvals(block).abs().max().item() for block in blocks]


def test_a_matrix_is_scaled_to_a_spectral_radius():
    matrix = torch.tensor([[0.0, 4.0], [-1.0, 0.0]])  # eigenvalues 2i and -2i

    scaled = initializers.scale_to_radius_(matrix.clone(), 0.5)

    torch.testing.assert_close(scaled, matrix / 4)


def test_a_matrix_without_a_radius_stays_as_it_is():
    matrix = torch.tensor([[0.0, 4.0], [0.0, 0.0]])

    assert torch.equal(initializers.scale_to_radius_(matrix.clone(), 0.5), matrix)


def test_what_a_unit_sends_to_others_has_one_sign():
    cell = dale(CTRNNCell(1, 2, alpha=0.3, dtype=torch.float64), excitatory=0.5)
    weights = torch.tensor([[0.5, -0.7, 0.4], [-0.2, 0.3, -0.6]], dtype=torch.float64)
    cell.learned("weight_hh").data.copy_(weights[:, :2])
    cell.weight_ih.data.copy_(weights[:, 2:])

    _, x = after(cell, [2.0], [0.6, 0.8], [0.1, 0.9])

    currents = [
        0.7 * 0.1 + 0.3 * (0.4 * 2.0 + 0.5 * 0.6 - 0.7 * 0.8),
        0.7 * 0.9 + 0.3 * (-0.6 * 2.0 + 0.2 * 0.6 - 0.3 * 0.8),
    ]
    assert x == near(currents)


@pytest.mark.parametrize("cell_cls", [CTRNNCell, GRUCell])
def test_excitation_and_inhibition_start_in_balance(cell_cls):
    cell = dale(cell_cls(3, 50))

    for block in cell.weight_hh.detach().chunk(len(cell.recurrent)):
        excite, inhibit = block[:, :40], -block[:, 40:]
        assert (excite >= 0).all()
        assert (inhibit >= 0).all()
        assert excite.sum().item() == pytest.approx(inhibit.sum().item(), rel=0.15)
    assert radii(cell) == pytest.approx([1.0] * len(cell.recurrent), abs=1e-5)


def test_signs_stay_while_the_weights_learn():
    cell = dale(CTRNNCell(3, 5, dtype=torch.float64), excitatory=0.6)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.5)
    before = cell.weight_hh.detach().clone()

    for _ in range(5):
        unroll(cell, torch.randn(2, 9, 3, dtype=torch.float64))[0].sum().backward()
        optimizer.step()

    assert (cell.weight_hh[:, :3] >= 0).all()
    assert (cell.weight_hh[:, 3:] <= 0).all()
    assert not torch.allclose(cell.weight_hh, before)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_there_is_a_unit_of_either_kind(share):
    columns = dale(RNNCell(3, 4), share).weight_hh.detach().sum(0)

    assert {bool(column > 0) for column in columns} == {True, False}


def test_a_cell_with_dales_law_obeys_the_laws_of_recurrence():
    check_cell(lambda input_size: dale(CTRNNCell(input_size, 4)))


def test_a_cell_with_dales_law_runs_in_the_loops():
    assert check_backend(dale(GRUCell(3, 5)), "c", steps=(1, 5)) == {}


def test_copies_and_pickles_keep_the_signs():
    cell = dale(CTRNNCell(3, 4))
    x = torch.randn(2, 5, 3)

    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(unroll(twin, x)[0], unroll(cell, x)[0])


def test_a_reservoir_is_sparse_and_has_its_spectral_radius():
    cell = reservoir(GRUCell(3, 60), spectral_radius=0.7, connectivity=0.2)

    assert radii(cell) == pytest.approx([0.7] * 3, abs=1e-5)
    assert (cell.weight_hh != 0).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (cell.weight_hh < 0).double().mean().item() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("units", [2, 4, 8])
def test_a_reservoir_of_few_units_has_its_spectral_radius_too(units):
    for seed in range(20):
        torch.manual_seed(seed)

        assert radii(reservoir(LeakyRNNCell(3, units))) == pytest.approx([0.9], abs=1e-4)


def test_a_reservoir_is_made_without_memory_too():
    assert reservoir(LeakyRNNCell(3, 4, device="meta")).weight_hh.is_meta


def test_a_reservoir_forgets_where_it_began():
    cell = reservoir(LeakyRNNCell(3, 50, dtype=torch.float64))
    x = torch.randn(2, 200, 3, dtype=torch.float64)

    y, _ = unroll(cell, x)
    other, _ = unroll(cell, x, (torch.randn(2, 50, dtype=torch.float64),))

    assert (y[:, -1] - other[:, -1]).abs().max() < 1e-3 < (y[:, 0] - other[:, 0]).abs().max()


def test_a_reservoir_does_not_learn_but_what_is_around_it_does():
    layer = Recurrent(reservoir(LeakyRNNCell(3, 8)))
    before, readout = torch.nn.Linear(2, 3), torch.nn.Linear(8, 1)

    y, _ = layer(before(torch.randn(2, 5, 2)))
    readout(y).sum().backward()

    assert all(p.grad is None and not p.requires_grad for p in layer.parameters())
    assert before.weight.grad.any()
    assert readout.weight.grad.any()


def test_every_layer_and_direction_draws_a_reservoir_of_its_own_and_draws_it_anew():
    make = partial(optioned, cell=LeakyRNNCell, options=[partial(reservoir, connectivity=0.5)])
    net = DeepRNN(make, 3, 20, 2, bidirectional=True)
    cells = [module for module in net.modules() if isinstance(module, LeakyRNNCell)]
    before = [cell.weight_hh.clone() for cell in cells]

    cells[0].reset_parameters()

    assert [radius for cell in cells for radius in radii(cell)] == pytest.approx([0.9] * 4, 1e-4)
    assert len({weight.sum().item() for weight in before}) == 4
    assert not torch.equal(cells[0].weight_hh, before[0])
    assert not cells[0].weight_hh.requires_grad


def test_a_reservoir_runs_in_the_loops():
    assert explain(reservoir(LeakyRNNCell(3, 8)), torch.randn(2, 5, 3)).chosen == "c"


@pytest.mark.parametrize("option", [dale, reservoir])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IndRNNCell(3, 4), "IndRNNCell has no recurrent product by gates"),
        (lambda: ExpRNNCell(3, 4), "ExpRNNCell computes its weight_hh already"),
        (lambda: LSTMCell(3, 4, proj_size=2), r"weight_hh of LSTMCell has shape \(16, 2\), expec"),
        (lambda: ConvLSTMCell(4, 8), "weight_hh of ConvLSTMCell has shape"),
    ],
)
def test_cells_without_square_recurrent_matrices_are_refused(option, make, message):
    with pytest.raises(ConfigError, match=f"{option.__name__}: {message}"):
        option(make())


@pytest.mark.parametrize("option", [dale, reservoir, orthogonal])
def test_what_is_no_cell_of_seqnets_is_refused(option):
    message = f"{option.__name__}: cell is GRUCell, expected a cell.\n  You passed torch.nn.GRUCell"
    with pytest.raises(ConfigError, match=message):
        option(torch.nn.GRUCell(3, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dale(RNNCell(3, 4), 1.0), "dale: excitatory is 1.0, expected a number above 0"),
        (lambda: dale(RNNCell(3, 1)), "dale: RNNCell has 1 unit, expected one that excites"),
        (lambda: reservoir(RNNCell(3, 4), 0), "reservoir: spectral_radius is 0, expected a numb"),
        (
            lambda: reservoir(RNNCell(3, 4), connectivity=2),
            "reservoir: connectivity is 2, expected a number above 0 and of at most 1",
        ),
        (
            lambda: reservoir(RNNCell(3, 4), connectivity=1e-6),
            "reservoir: 100 matrices drawn for RNNCell have no eigenvalue but 0, expected one",
        ),
    ],
)
def test_invalid_numbers_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
