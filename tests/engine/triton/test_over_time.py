"""Steps side by side, printed with their scan: what the plain loop computes, in the interpreter."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from seqnets import unroll
from seqnets.cells import (
    FPoolQRNNCell,
    HGRNCell,
    LearnedState,
    LRUCell,
    LSTMCell,
    MinGRUCell,
    QRNNCell,
    SRUCell,
    Zoneout,
)
from seqnets.engine import preference, scan
from seqnets.engine.linear import recurrences
from seqnets.engine.plans import program_of
from seqnets.engine.request import Request, make_request
from seqnets.engine.triton import access, tiles
from seqnets.testing import check_backend
from tests.cells.final import TRACED_CELLS, sized
from tests.engine.triton.test_loops import ALL_AT_ONCE, FLOAT32
from tests.engine.user_cells import CascadeCell, LeakyCell, SelectiveCell
from tests.slow import mostly_slow

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's

H200 = tiles.Device(132, 232448)
QUICK = (MinGRUCell, SRUCell, FPoolQRNNCell, HGRNCell, LeakyCell)


@pytest.fixture(autouse=True, params=["whole", "in pieces"])
def _way(request, monkeypatch, using, quick_scans):
    """Time whole, or in more pieces than a tile has steps; tiles are small."""
    from seqnets.engine.triton.loops import TritonLoops

    monkeypatch.setattr(tiles, "_NUMBERS", 128)
    monkeypatch.setattr(tiles, "_FULL", 0 if request.param == "whole" else 2**30)
    monkeypatch.setattr(tiles, "_ENOUGH", 8)
    using(TritonLoops("time"))


check = partial(check_backend, backend="triton", steps=(19,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


def is_linear(cell):
    return recurrences(program_of(cell)) is not None


@pytest.mark.parametrize("cell_cls", [*QUICK, QRNNCell])
def test_cells_that_see_their_state_through_a_factor_alone_are_found(cell_cls):
    assert is_linear(cell_cls(3, 5))


@pytest.mark.parametrize("cell_cls", mostly_slow([*TRACED_CELLS, LeakyCell], QUICK))
def test_every_linear_cell_agrees_with_the_reference(cell_cls):
    cell = sized(cell_cls, 3, 5)
    if not is_linear(cell):
        pytest.skip("the cell is not linear")

    check(cell)


@pytest.mark.parametrize("T", mostly_slow([1, 5], quick=[5]))
def test_requests_of_all_kinds_agree_with_the_reference(T):
    assert check_backend(MinGRUCell(3, 5), "triton", steps=(T,), dtypes=FLOAT32) == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: LearnedState(MinGRUCell(3, 5)),
        lambda: Zoneout(MinGRUCell(3, 5), p=0.3).eval(),
        lambda: HGRNCell(3, 17),
    ],
    ids=["a learned state", "an option", "more units than a tile"],
)
def test_options_and_sizes_agree_with_the_reference(make):
    check(make())


def test_what_takes_more_than_the_device_has_runs_in_steps(monkeypatch):
    from triton.runtime.errors import OutOfResources

    from seqnets.engine.triton import loops

    run = loops.Pass.run

    def limited(self, *arguments):
        if self.tiles.mode != "step":
            raise OutOfResources(2, 1, "registers")
        run(self, *arguments)

    monkeypatch.setattr(loops.Pass, "run", limited)

    check_backend(MinGRUCell(3, 5), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


def test_half_precision_is_stored_and_computed_in_single():
    cell, x = MinGRUCell(3, 5), torch.randn(2, 40, 3)

    y, (h,) = unroll(cell.half(), x.half(), backend="triton")

    exact, _ = unroll(cell.double(), x.double(), backend="reference")
    assert y.dtype == h.dtype == torch.float16
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "cell_cls", [LSTMCell, LRUCell, CascadeCell, SelectiveCell], ids=lambda cls: cls.__name__
)
def test_what_is_more_than_a_scan_of_its_own_units_is_not_printed_so(cell_cls):
    assert not is_linear(cell_cls(3, 5))


def test_padding_may_hold_anything():
    cell, x = MinGRUCell(3, 5), torch.randn(2, 20, 3)
    spoiled = x.clone()
    spoiled[0, 7:] = float("nan")
    lengths = torch.tensor([7, 20])

    for reverse in (False, True):
        clean, dirty = (
            unroll(cell, each, lengths=lengths, reverse=reverse, backend="triton")
            for each in (x, spoiled)
        )
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("B", "T", "H", "pays"),
    [(16, 1024, 256, True), (16, 64, 256, False), (256, 1024, 1024, False), (1, 128, 1, True)],
    ids=["long", "short", "enough work a step", "little"],
)
def test_steps_go_side_by_side_where_there_are_many_and_each_is_little_work(B, T, H, pays):
    assert tiles.over_time_pays(B, T, H, H200) is pays


@pytest.mark.parametrize(
    ("cell_cls", "B", "T", "pays"),
    [(LRUCell, 16, 1024, True), (LRUCell, 16, 1023, False), (LRUCell, 2000, 1024, False),
     (LSTMCell, 16, 1024, False)],
    ids=["long", "short", "wide", "no scan"],
)  # fmt: skip
def test_torchs_operations_come_first_on_a_gpu_where_a_long_scan_is_little_work(
    cell_cls, B, T, pays, monkeypatch
):
    monkeypatch.setattr(scan, "_is_printed", lambda request: False)
    monkeypatch.setattr(scan, "refusal_of_operations", lambda x: None)
    on_a_gpu = SimpleNamespace(shape=(B, T, 3), is_cuda=True, dtype=torch.float32)

    assert scan.pays(Request(cell_cls(3, 5), on_a_gpu, ())) is pays


def test_where_that_pays_it_comes_before_the_loops(monkeypatch):
    monkeypatch.setattr(scan, "_is_printed", lambda request: True)
    monkeypatch.setattr(access, "device_of", lambda like: H200)
    requests = [
        make_request(MinGRUCell(3, 5), torch.zeros(2, T, 3), None, None, None, False)
        for T in (128, 127)
    ]

    orders = [preference.preference(request) for request in requests]

    assert orders[0][0] == "scan"
    assert orders[1][0] != "scan"
