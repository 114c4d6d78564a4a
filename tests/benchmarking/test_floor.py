"""The matrix products that a pass cannot avoid."""

from functools import partial

import pytest
import torch

from seqnets import cells
from seqnets.benchmarking import Case
from seqnets.benchmarking import floor as module
from seqnets.benchmarking.contestants import make_workload
from seqnets.benchmarking.floor import floor, operations, products

I, H, P = 3, 5, 2


@pytest.mark.parametrize(
    ("make", "of_inputs", "of_steps"),
    [
        (cells.LSTMCell, [(4 * H, I)], [(4 * H, H)]),
        (cells.GRUCell, [(3 * H, I)], [(3 * H, H)]),
        (cells.RNNCell, [(H, I)], [(H, H)]),
        (partial(cells.LSTMCell, proj_size=P), [(4 * H, I)], [(4 * H, P), (P, H)]),
        (cells.PeepholeLSTMCell, [(4 * H, I)], [(4 * H, H)]),
    ],
    ids=["lstm", "gru", "rnn", "projection", "peephole"],
)
def test_the_products_are_those_of_the_cells_matrices(make, of_inputs, of_steps):
    assert products(make(I, H)) == (of_inputs, of_steps)


def test_operations_count_every_product_of_a_step():
    assert operations(cells.LSTMCell(I, H, proj_size=P)) == 4 * H * I + 4 * H * P + P * H


@pytest.mark.parametrize(
    ("pass_", "expected"),
    [
        ("forward", {(8, 15, 3): 1, (2, 15, 5): 4}),
        ("step", {(2, 15, 3): 1, (2, 15, 5): 1}),
        (
            "training",
            {
                (8, 15, 3): 1,  # inputs
                (2, 15, 5): 4,  # each step
                (2, 5, 15): 4,  # and back
                (15, 3, 8): 1,  # gradients of both weights, and of the inputs
                (15, 5, 8): 1,
                (8, 3, 15): 1,
            },
        ),
    ],
)
def test_a_pass_runs_each_product_once_per_use(pass_, expected, monkeypatch):
    case = Case("gru", 2, 1 if pass_ == "step" else 4, I, H, pass_)
    work = make_workload(case, cells.GRUCell, torch.device("cpu"))
    ran = {}
    multiply = torch.mm

    def counted(a, b, out):
        size = (a.shape[0], b.shape[1], a.shape[1])
        ran[size] = ran.get(size, 0) + 1
        return multiply(a, b, out=out)

    monkeypatch.setattr(module.torch, "mm", counted)

    floor(work).run()

    assert ran == expected
