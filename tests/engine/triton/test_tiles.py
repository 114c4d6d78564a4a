"""How a pass is cut: a rule of sizes alone."""

import pytest

from seqnets.cells import GRUCell, IndRNNCell, LSTMCell
from seqnets.engine.plans import program_of
from seqnets.engine.triton.tiles import Device, choose

H200 = Device(132, 232448)
SMALL = Device(20, 65536)


@pytest.mark.parametrize(
    ("cell", "B", "mode"),
    [
        (LSTMCell(3, 64), 32, "rows"),
        (IndRNNCell(3, 1024), 32, "rows"),
        (LSTMCell(3, 65), 32, "grid"),
        (LSTMCell(3, 512), 64, "grid"),
        (LSTMCell(3, 1024), 4096, "step"),
    ],
    ids=["narrow", "units that need no others", "wide", "wider", "more rows than programs"],
)
def test_sizes_decide_how_programs_share_the_work(cell, B, mode):
    assert choose(program_of(cell), "forward", B, 2, H200).mode == mode


@pytest.mark.parametrize("device", [H200, SMALL])
@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("H", [65, 128, 300, 768, 1024, 2048])
@pytest.mark.parametrize("B", [1, 16, 33, 128, 1000])
def test_programs_that_meet_all_run_at_once_and_cover_all_units_and_rows(H, B, pass_, device):
    tiles = choose(program_of(GRUCell(3, H)), pass_, B, 4, device)

    assert tiles.mode == "step" or tiles.programs * tiles.groups <= device.processors
    assert tiles.programs * dict(tiles.units)[H] >= H
    assert tiles.groups * tiles.rows >= B


def test_weights_stay_on_chip_where_they_fit():
    program = program_of(LSTMCell(3, 1024))

    assert choose(program, "forward", 16, 2, H200).resident
    assert not choose(program_of(LSTMCell(3, 2048)), "forward", 16, 2, H200).resident
