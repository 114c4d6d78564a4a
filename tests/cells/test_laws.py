from functools import partial

import pytest

from seqnets.cells import GRUCell, LSTMCell, MinGRUCell, PhasedLSTMCell, RNNCell
from seqnets.layers import Bidirectional, DeepRNN, Recurrent, Truncated
from seqnets.testing import check_cell, check_layer
from tests.slow import mostly_slow

from .final import (
    FINAL_CELLS,
    ONE_OF_EACH_KIND,
    PROJECTING,
    SPIKING_CELLS,
    lawless,
    sized,
    smooth,
    width,
)

pytestmark = pytest.mark.usefixtures("plain_loop")

QUICK = (GRUCell, LSTMCell, MinGRUCell, PhasedLSTMCell)
BOTH_WAYS = ("chunks", "steps", "causality")


@pytest.mark.parametrize("cell_cls", FINAL_CELLS)
def test_cell_obeys_the_laws_of_recurrence(cell_cls):
    make = partial(cell_cls, hidden_size=4)

    check_cell(make, input_size=width(cell_cls, 3, 4), skip=lawless(cell_cls))


@pytest.mark.parametrize("cell_cls", SPIKING_CELLS)
def test_cell_whose_spikes_are_smooth_obeys_all_laws_of_recurrence(cell_cls):
    check_cell(lambda input_size: smooth(cell_cls(input_size, 4)))


@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, ONE_OF_EACH_KIND))
def test_cell_without_biases_obeys_the_laws_of_recurrence(cell_cls):
    make = partial(cell_cls, hidden_size=4, bias=False)

    check_cell(make, input_size=width(cell_cls, 3, 4), skip=lawless(cell_cls))


@pytest.mark.parametrize("cell_cls", PROJECTING)
def test_cell_with_a_projection_obeys_the_laws_of_recurrence(cell_cls):
    check_cell(partial(cell_cls, hidden_size=4, proj_size=2))


def test_relu_network_obeys_the_laws_of_recurrence():
    check_cell(partial(RNNCell, hidden_size=4, nonlinearity="relu"))


@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, QUICK))
def test_every_layer_around_a_cell_obeys_the_laws_of_recurrence(cell_cls):
    make = partial(sized, cell_cls, 3, 3)
    shut = ("usefulness",) * (cell_cls is PhasedLSTMCell)  # in evaluation a unit may never open
    cut = ("usefulness",) * bool(cell_cls.clocks)  # a clock says nothing past a cut
    shut += lawless(cell_cls)

    check_layer(Recurrent(make()), skip=shut)
    check_layer(Recurrent(make(), reverse=True), skip=(*BOTH_WAYS, "resets", *shut))
    check_layer(Bidirectional(make()), skip=(*BOTH_WAYS, *shut))
    check_layer(DeepRNN(cell_cls, 3, 3, num_layers=2), skip=shut)
    check_layer(Truncated(Recurrent(make()), steps=4, stride=2), skip=("gradients", *shut, *cut))


@pytest.mark.parametrize("merge", ["sum", "mean", "none"])
def test_every_merge_obeys_the_laws_of_recurrence(merge):
    check_layer(Bidirectional(LSTMCell(3, 2), merge=merge), skip=BOTH_WAYS)


@pytest.mark.parametrize("connection", ["residual", "highway"])
def test_every_connection_obeys_the_laws_of_recurrence(connection):
    check_layer(DeepRNN(LSTMCell, 3, 2, num_layers=3, connection=connection, dropout=0.5))
    check_layer(
        DeepRNN(LSTMCell, 3, 2, 2, connection=connection, bidirectional=True, merge="sum"),
        skip=BOTH_WAYS,
    )
