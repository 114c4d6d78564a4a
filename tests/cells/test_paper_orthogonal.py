"""Networks whose recurrent matrix is a rotation: against the paper, and over other cells."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    CfCCell,
    ConvGRUCell,
    ExpRNNCell,
    GRUCell,
    IndRNNCell,
    LayerNorm,
    LSTMCell,
    OriginalGRUCell,
    dale,
    optioned,
    orthogonal,
    weight_drop,
)
from seqnets.cells.redrawing import redraw
from seqnets.errors import ConfigError
from seqnets.layers import DeepRNN
from seqnets.testing import check_backend, check_cell, one_unit, step

from .plain import after, numbers, times, total

LEARNED = "parametrizations.weight_hh.original"
GATED = (LSTMCell, GRUCell, OriginalGRUCell)


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def blocks(cell):
    return cell.weight_hh.unflatten(0, (len(cell.recurrent), -1))


def assert_orthonormal(matrices):
    """Their columns are."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype).expand(*matrices.shape[:-2], -1, -1)
    torch.testing.assert_close(matrices.mT @ matrices, eye)


def modrelu(a, m):
    return math.copysign(max(0.0, abs(a) + m), a)


@pytest.mark.parametrize("m", [0.2, -0.4, -9.0])
def test_exprnn_follows_its_paper(m):
    cell = one_unit(ExpRNNCell, w=(0.5,), b=(0.1,), d=(-0.3,), threshold=m, **{LEARNED: 0.7})
    h = -1.5

    for x in (2.0, -0.7, 0.4):
        expected = modrelu(0.5 * x + 0.1 + math.exp(0.7 - 0.7) * h - 0.3, m)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_exprnn_of_two_units_turns_them_by_the_angle_learned():
    cell = ExpRNNCell(1, 2, dtype=torch.float64)
    angle = cell.parametrizations.weight_hh.original[1, 0].item()
    h = [0.3, -0.8]
    turned = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]

    expected = total(times(numbers(cell)["weight_ih"], [2.0]), times(turned, h))

    assert after(cell, [2.0], h)[0] == near(expected)


def test_exprnn_can_use_tanh():
    make = partial(ExpRNNCell, nonlinearity="tanh")
    cell = one_unit(make, w=(0.5,), **{LEARNED: 0.7})

    assert step(cell, 2.0, -1.5) == near(math.tanh(0.5 * 2.0 - 1.5))


def test_exprnn_with_tanh_obeys_the_laws_of_recurrence():
    check_cell(partial(ExpRNNCell, hidden_size=4, nonlinearity="tanh"))


def test_exprnn_carries_a_state_without_loss_at_the_start():
    cell = ExpRNNCell(3, 7, dtype=torch.float64)
    h = torch.randn(2, 7, dtype=torch.float64)

    _, (last,) = unroll(cell, torch.zeros(2, 50, 3, dtype=torch.float64), (h,))

    torch.testing.assert_close(last.norm(dim=1), h.norm(dim=1))
    assert not torch.allclose(last, h)


def test_unknown_nonlinearities_of_exprnn_are_refused():
    with pytest.raises(
        ConfigError, match="ExpRNNCell: nonlinearity is 'relu', expected one of modrelu, tanh"
    ):
        ExpRNNCell(3, 4, nonlinearity="relu")


@pytest.mark.parametrize("hidden_size", [1, 2, 5, 8])
@pytest.mark.parametrize("cell_cls", GATED)
def test_every_gate_of_a_cell_becomes_orthogonal_and_stays_so(cell_cls, hidden_size):
    cell = orthogonal(cell_cls(3, hidden_size, dtype=torch.float64))
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.5)

    for _ in range(3):
        assert_orthonormal(blocks(cell))
        unroll(cell, torch.randn(2, 5, 3, dtype=torch.float64))[0].square().sum().backward()
        optimizer.step()

    assert_orthonormal(blocks(cell))


def test_a_projected_output_has_orthonormal_columns():
    cell = orthogonal(LSTMCell(3, 5, proj_size=2, dtype=torch.float64))

    assert blocks(cell).shape == (4, 5, 2)
    assert_orthonormal(blocks(cell))


def test_half_precision_is_orthogonal_too():
    cell = orthogonal(LSTMCell(3, 6)).bfloat16()

    product = (blocks(cell).mT @ blocks(cell)).float()

    torch.testing.assert_close(product, torch.eye(6).expand(4, 6, 6), rtol=0, atol=0.02)


@pytest.mark.parametrize("cell_cls", GATED)
def test_an_orthogonal_cell_obeys_the_laws_of_recurrence(cell_cls):
    check_cell(lambda input_size: orthogonal(cell_cls(input_size, 4)))


def test_an_orthogonal_cell_runs_on_the_backends_of_its_class():
    check_backend(orthogonal(GRUCell(3, 5)), "native", steps=(1, 5))


@pytest.mark.parametrize("make", [lambda: ExpRNNCell(3, 4), lambda: orthogonal(GRUCell(3, 4))])
def test_copies_and_pickles_of_an_orthogonal_cell_learn_apart(make):
    cell = make()
    x = torch.randn(2, 5, 3)

    for twin in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        twin = pickle.loads(pickle.dumps(twin))
        assert torch.equal(unroll(twin, x)[0], unroll(cell, x)[0])
        twin.parametrizations.weight_hh.original.data[1, 0] += 1
        assert not torch.equal(unroll(twin, x)[0], unroll(cell, x)[0])


@pytest.mark.parametrize("make", [lambda: ExpRNNCell(3, 4), lambda: orthogonal(GRUCell(3, 4))])
def test_reset_parameters_draws_other_rotations(make):
    cell = make()
    before = cell.weight_hh

    redraw(cell)

    assert_orthonormal(blocks(cell))
    assert not torch.equal(cell.weight_hh, before)


def test_both_directions_and_all_layers_have_rotations_of_their_own():
    make = partial(optioned, cell=GRUCell, options=[orthogonal])
    net = DeepRNN(make, 3, 4, 2, bidirectional=True)

    matrices = [blocks(m) for m in net.modules() if isinstance(m, GRUCell)]

    assert len(matrices) == 4
    for matrix in matrices:
        assert_orthonormal(matrix)
        assert sum(torch.equal(matrix, other) for other in matrices) == 1


def test_options_go_around_and_into_an_orthogonal_cell():
    inside = LayerNorm(orthogonal(LSTMCell(3, 4)))
    outside = orthogonal(LayerNorm(LSTMCell(3, 4)))
    dropped = weight_drop(orthogonal(LSTMCell(3, 4)), 0.5)

    assert_orthonormal(blocks(inside.cell))
    assert_orthonormal(blocks(outside.cell))
    assert not torch.equal(dropped.weight_hh, dropped.weight_hh)
    assert_orthonormal(blocks(dropped.eval()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IndRNNCell(3, 4), "IndRNNCell has no recurrent product by gates"),
        (lambda: ExpRNNCell(3, 4), "ExpRNNCell computes its weight_hh already"),
        (lambda: orthogonal(GRUCell(3, 4)), "GRUCell computes its weight_hh already"),
        (lambda: dale(GRUCell(3, 4)), "GRUCell computes its weight_hh already"),
        (lambda: CfCCell(3, 4, backbone_size=2), "weight_hh of CfCCell has shape"),
        (lambda: ConvGRUCell(3, 4), "weight_hh of ConvGRUCell has shape"),
    ],
)
def test_cells_without_a_matrix_to_make_orthogonal_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"orthogonal: {message}"):
        orthogonal(make())
