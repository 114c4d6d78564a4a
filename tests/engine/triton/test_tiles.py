"""How a pass is cut: a rule of sizes alone."""

import pytest
import torch
import torch.nn.functional as F

from seqnets.cells import (
    GRUCell,
    IFOPoolQRNNCell,
    IndRNNCell,
    LSTMCell,
    MinGRUCell,
    NASCell,
    S6Cell,
)
from seqnets.engine.plans import plan_of, program_of
from seqnets.engine.triton.tiles import Device, choose, tiles_of_a_piece
from tests.engine.user_cells import BareCell, TorchCell

H200, L4 = Device(132, 232448), Device(58, 101376)


def of(cell_cls, H):
    """The program of a cell whose parameters take no memory."""
    with torch.device("meta"):
        return program_of(cell_cls(3, H))


SMALL = Device(20, 65536)


@pytest.mark.parametrize(
    ("cell", "B", "mode"),
    [
        ((LSTMCell, 64), 32, "rows"),
        ((IndRNNCell, 1024), 32, "rows"),
        ((LSTMCell, 65), 32, "grid"),
        ((LSTMCell, 512), 64, "grid"),
        ((LSTMCell, 1024), 4096, "step"),
    ],
    ids=["narrow", "units that need no others", "wide", "wider", "more rows than programs"],
)
def test_sizes_decide_how_programs_share_the_work(cell, B, mode):
    assert choose(of(*cell), "forward", B, 2, H200).mode == mode


class Narrowed(BareCell):
    """Reads all units of a row, by no product."""

    def make(self, I, H):
        self.rate = self.weight(H)

    def step(self, x, state):
        z = state[0] * self.rate
        return (torch.tanh(z / (1 + z.square().mean(-1, keepdim=True))),)


@pytest.mark.parametrize(("H", "B"), [(512, 262_144), (2048, 65_536), (2048, 524_280)])
def test_no_launch_has_more_groups_of_rows_than_a_gpu_takes(H, B):
    assert choose(of(Narrowed, H), "forward", B, 4, H200).groups < 2**16


@pytest.mark.parametrize("device", [H200, SMALL])
@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("H", [65, 128, 300, 768, 1024, 2048])
@pytest.mark.parametrize("B", [1, 16, 33, 128, 1000])
def test_programs_that_meet_all_run_at_once_and_cover_all_units_and_rows(H, B, pass_, device):
    tiles = choose(of(GRUCell, H), pass_, B, 4, device)

    assert tiles.mode == "step" or tiles.programs * tiles.groups <= device.processors
    assert tiles.programs * dict(tiles.units)[H] >= H
    assert tiles.groups * tiles.rows >= B


@pytest.mark.parametrize(("size", "mode"), [(2, "rows"), (4, "grid")])
def test_weights_of_several_products_leave_room_on_chip_for_what_each_multiplies(size, mode):
    program = plan_of(TorchCell(64, 64)).program

    assert choose(program, "backward", 32, size, H200).mode == mode


class Detached(BareCell):
    """A product of few units that nothing but a constant reads."""

    def make(self, I, H):
        self.down, self.up = self.weight(5, H), self.weight(H, 5)

    def step(self, x, state):
        (h,) = state
        few = torch.tanh(F.linear(h, self.down))
        return (torch.tanh(x[:, :1] + h + F.linear(few, self.up).detach()),)


@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_a_product_that_a_pass_does_not_compute_has_no_tile(pass_):
    widths = dict(choose(of(Detached, 70), pass_, 32, 4, H200).units)

    assert (5 in widths) == (pass_ == "forward")


@pytest.mark.parametrize(("cell_cls", "mode"), [(LSTMCell, "rows"), (NASCell, "grid")])
def test_weights_of_a_wide_product_leave_room_on_chip_for_its_backward_pass(cell_cls, mode):
    program = of(cell_cls, 64)

    assert choose(program, "forward", 64, 4, H200).mode == "rows"
    assert choose(program, "backward", 64, 4, H200).mode == mode


@pytest.mark.parametrize(("cell_cls", "mode"), [(LSTMCell, "grid"), (GRUCell, "rows")])
def test_inputs_that_come_ahead_leave_room_on_chip_for_the_weights(cell_cls, mode):
    assert choose(of(cell_cls, 64), "forward", 64, 4, L4).mode == mode


@pytest.mark.parametrize(
    ("cell_cls", "steps"), [(MinGRUCell, 32), (IFOPoolQRNNCell, 16), (S6Cell, 8)]
)
def test_the_more_numbers_a_step_has_the_fewer_steps_are_side_by_side(cell_cls, steps):
    assert choose(of(cell_cls, 64), "backward", 64, 4, H200, "time").rows == steps


def test_weights_stay_on_chip_where_they_fit():
    program = of(LSTMCell, 1024)

    assert choose(program, "forward", 16, 2, H200).resident
    assert not choose(of(LSTMCell, 2048), "forward", 16, 2, H200).resident


@pytest.mark.parametrize("programs", [1, 7, 1023, 1024, 4096])
@pytest.mark.parametrize("tiles", [1, 2, 64, 257, 4096])
def test_pieces_of_time_are_neither_too_many_nor_too_few(programs, tiles):
    size = tiles_of_a_piece(programs, tiles)

    pieces = -(-tiles // size)
    assert size * (pieces - 1) < tiles <= size * pieces
    assert pieces == 1 if programs >= 1024 else pieces <= min(512, 4096 // programs)
