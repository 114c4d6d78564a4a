"""Cells that are split into heads, whose units recur among themselves."""

import pickle
from functools import partial

import pytest
import torch

from seqnets import DeepRNN, unroll
from seqnets.cells import (
    ConvLSTMCell,
    ExpRNNCell,
    GRUCell,
    IndRNNCell,
    LSTMCell,
    RNNCell,
    SLSTMCell,
    block_diagonal,
    dale,
    initialize,
    optioned,
    orthogonal,
    reservoir,
)
from seqnets.errors import ConfigError
from seqnets.testing import check_backend, check_cell


def test_heads_are_cells_beside_each_other_that_read_the_same_input():
    cell = block_diagonal(GRUCell(3, 6, dtype=torch.float64), 2)
    heads = [GRUCell(3, 3, dtype=torch.float64) for _ in range(2)]
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    for k, head in enumerate(heads):
        for name, own in head.named_parameters():
            gates = cell.learned(name).detach().unflatten(0, (3, 2, 3))
            own.data.copy_(gates[:, k].flatten(0, 1))

    y, (h,) = unroll(cell, x)

    apart = [unroll(head, x) for head in heads]
    torch.testing.assert_close(y, torch.cat([y for y, _ in apart], -1))
    torch.testing.assert_close(h, torch.cat([h for _, (h,) in apart], -1))


def test_they_are_the_heads_of_an_slstm():
    cell, own = block_diagonal(SLSTMCell(3, 6), 3), SLSTMCell(3, 6, num_heads=3)
    own.load_state_dict(cell.state_dict())
    x = torch.randn(2, 5, 3)

    torch.testing.assert_close(unroll(cell, x), unroll(own, x))


@pytest.mark.parametrize("cell_cls", [LSTMCell, RNNCell])
def test_a_cell_with_heads_obeys_the_laws_and_runs_in_the_loops(cell_cls):
    check_cell(lambda input_size: block_diagonal(cell_cls(input_size, 4), 2))

    assert check_backend(block_diagonal(cell_cls(3, 6), 3), "c", steps=(1, 5)) == {}


def test_every_layer_and_direction_draws_orthogonal_heads_and_draws_them_anew():
    make = partial(optioned, cell=LSTMCell, options=[partial(block_diagonal, num_heads=3)])
    net = DeepRNN(make, 3, 6, 2, bidirectional=True)
    cells = [module for module in net.modules() if isinstance(module, LSTMCell)]
    before = [cell.weight_hh.clone() for cell in cells]

    cells[0].reset_parameters()

    for cell in cells:
        for gate in cell.weight_hh.chunk(4):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6))
            assert (gate != 0).sum() == 12
    assert len({weight.sum().item() for weight in before}) == 4
    assert not torch.equal(cells[0].weight_hh, before[0])


def test_a_rule_holds_for_each_head_and_pickles_keep_them():
    cell = initialize(block_diagonal(RNNCell(3, 6), 2), weight_hh="identity")

    assert torch.equal(cell.weight_hh, torch.eye(6))
    assert torch.equal(pickle.loads(pickle.dumps(cell)).weight_hh, torch.eye(6))


@pytest.mark.parametrize(
    "make", [SLSTMCell, lambda *sizes, num_heads: block_diagonal(LSTMCell(*sizes), num_heads)]
)
def test_rotations_turn_every_head(make):
    cell = orthogonal(make(3, 6, num_heads=3))

    for gate in cell.weight_hh.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6))
        assert (gate != 0).sum() == 12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IndRNNCell(3, 4), "IndRNNCell has no recurrent product by gates"),
        (lambda: ExpRNNCell(3, 4), "ExpRNNCell computes its weight_hh already"),
        (lambda: dale(RNNCell(3, 4)), "RNNCell computes its weight_hh already"),
        (lambda: SLSTMCell(3, 4, num_heads=2), "SLSTMCell computes its weight_hh already"),
        (lambda: LSTMCell(3, 4, proj_size=2), r"weight_hh of LSTMCell has shape \(16, 2\), expec"),
        (lambda: ConvLSTMCell(4, 8), "weight_hh of ConvLSTMCell has shape"),
        (lambda: reservoir(RNNCell(3, 4), connectivity=1), "weight_hh of RNNCell is fixed"),
    ],
)
def test_cells_that_learn_no_square_recurrent_matrices_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"block_diagonal: {message}"):
        block_diagonal(make(), 2)


def test_heads_that_do_not_divide_the_units_are_refused():
    with pytest.raises(ConfigError, match="num_heads is 3, expected a divisor of hidden_size = 4"):
        block_diagonal(GRUCell(3, 4), 3)
