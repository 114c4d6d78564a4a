"""Loops printed as Triton against the reference, in the interpreter: every cell, in every mode."""

import os
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch

from seqnets import Recurrent, unroll
from seqnets.cells import (
    GatedCell,
    GRUCell,
    LayerNorm,
    LearnedState,
    LSTMCell,
    MinGRUCell,
    NCPCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    RNNCell,
    Zoneout,
)
from seqnets.engine import fused, operator, triton
from seqnets.engine.plans import program_of
from seqnets.engine.request import make_request
from seqnets.engine.triton import access
from seqnets.errors import BackendError
from seqnets.testing import check_backend
from seqnets.testing.backend import VARIANTS
from tests.cells.final import ONE_OF_EACH_KIND, PAIRING_CELLS, TRACED_CELLS, sized, smooth
from tests.engine.user_cells import (
    USER_CELLS,
    AttentiveCell,
    BareCell,
    CrossedStatesCell,
    HeadsCell,
    NormedCell,
    SelectiveCell,
)
from tests.slow import mostly_slow

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy's

MODES = ["rows", "step", "grid"]
USERS_KINDS = (AttentiveCell, CrossedStatesCell, HeadsCell, NormedCell, SelectiveCell)
KINDS = (*ONE_OF_EACH_KIND, *USERS_KINDS)
ALL_AT_ONCE = [v for v in VARIANTS if v.resets and v.ragged and v.reverse]
FLOAT32 = (torch.float32,)
SHARES = 8  # of all cells; some three quarters of a minute each


def loops(mode, **cut):
    """Loops in a mode; in a grid there is one program, since the interpreter runs no two at once.

    Args:
        mode: The mode.
        cut: How the tiles of a grid differ from what a GPU would get.
    """
    from seqnets.engine.triton import loops as module
    from seqnets.engine.triton.tiles import Tiles, choose, power_of_two

    made = module.TritonLoops(mode)

    def grid(program, name, like, B):
        chosen = choose(program, name, B, 4, module.device_of(like), "step")
        units = tuple((width, max(16, power_of_two(width))) for width, _ in chosen.units)
        shape = {"split": 4, "depth": 64, "resident": True} | cut
        return Tiles("grid", 16, units, 1, chosen.groups * chosen.rows // 16 or 1, warps=4, **shape)

    if mode == "grid":
        made.tiles = grid
    return made


def in_modes(cells):
    """Cells and modes: quickly every cell in whole rows, one of each kind in the other modes."""
    grid = [*product(cells, MODES)]
    quick = [(cell, mode) for cell, mode in grid if mode == "rows" or cell in KINDS]
    return mostly_slow(grid, quick)


@pytest.mark.parametrize(("cell_cls", "mode"), in_modes(TRACED_CELLS))
def test_every_cell_agrees_with_the_reference(cell_cls, mode, using):
    using(loops(mode))
    cell = smooth(sized(cell_cls, 3, 5))

    check_backend(cell, "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "cell_cls", mostly_slow([LSTMCell, OriginalGRUCell], quick=[OriginalGRUCell])
)
def test_requests_of_all_kinds_agree_with_the_reference(cell_cls, mode, using):
    using(loops(mode))

    assert check_backend(cell_cls(3, 17), "triton", steps=(1, 4), dtypes=FLOAT32) == {}


@pytest.mark.parametrize("mode", [*MODES, "time"])
@pytest.mark.parametrize("cut_short", [False, True])
def test_no_state_before_is_zeros(mode, cut_short, using):
    using(access.loops_over_time() if mode == "time" else loops(mode))
    cell = MinGRUCell(3, 5) if mode == "time" else LSTMCell(3, 5)
    x, zeros = torch.randn(2, 4, 3), tuple(torch.zeros(2, 5) for _ in cell.states)
    lengths = torch.tensor([3, 0]) if cut_short else None
    resets = torch.tensor([[False, True, False, False], [True, False, False, False]])
    found = []
    for state in (None, zeros):
        y, after = unroll(cell, x, state, lengths, resets, backend="triton")
        loss = y.square().sum() + after[-1].sum()
        found.append([y, *after, *torch.autograd.grad(loss, tuple(cell.parameters()))])

    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize(("cell_cls", "mode"), in_modes(USER_CELLS))
def test_a_users_cell_agrees_with_the_reference_with_no_other_edit(cell_cls, mode, using):
    using(loops(mode))

    check_backend(cell_cls(3, 6), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "make",
    [partial(LSTMCell, proj_size=3), partial(RNNCell, bias=False), partial(GRUCell, 3, 70)],
    ids=["parts of two widths", "no bias", "more units than a piece"],
)
def test_sizes_and_options_of_cells_agree_with_the_reference(make, mode, using):
    using(loops(mode))
    cell = make() if make.args else make(3, 7)

    check_backend(cell, "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


class PiecesCell(GatedCell):
    """Parameters read in pieces of several widths, by names that begin alike."""

    gates = ("h",)
    per_unit = ("p", "p_0", "p_0_6")

    def step(self, wx, state):
        (h,) = state
        (u,) = self.recur(h)
        scaled = self.p * h + self.p_0_6 * torch.cat([self.p[:2] * h[:, :2], h[:, 2:]], -1)
        return (torch.tanh(wx + u + scaled) * self.p_0,)


@pytest.mark.parametrize("mode", MODES)
def test_pieces_of_parameters_have_names_of_their_own(mode, using):
    using(loops(mode))

    check_backend(PiecesCell(3, 6), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


class BoundedCell(GatedCell):
    """A number for all units, learned, bounds what has been normalised."""

    gates = ("n",)

    def add_parameters(self, parameter):
        self.bound = parameter(1)

    def update(self, wx, uh, state):
        n = torch.softmax(wx.n + uh.n, -1)
        return (torch.maximum(n, self.bound) - torch.minimum(n, self.bound),)


def test_a_number_for_all_units_may_bound_each():
    check_backend(BoundedCell(3, 5), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


class TwoWidthsCell(BareCell):
    """A learned number for the units of two states, in tiles that differ in size."""

    states, state_sizes = ("h", "m", "n"), (2, 5, 3)

    def make(self, I, H):
        self.rate = self.weight(1)

    def step(self, x, state):
        h, m, n = state
        first = x[:, :1]
        return tuple(torch.tanh(self.rate * part + first) for part in (h + first, m, n))


@pytest.mark.parametrize("mode", MODES)
def test_a_number_for_units_of_two_widths_has_one_gradient(mode, using):
    using(loops(mode))

    check_backend(TwoWidthsCell(2, 2), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


class ManyGatesCell(GatedCell):
    """More gates than a tile is split into."""

    gates = tuple(f"g{i}" for i in range(17))

    def update(self, wx, uh, state):
        return (torch.tanh(sum(w * torch.sigmoid(u) for w, u in zip(wx, uh, strict=True))),)


class FirstUnitCell(GatedCell):
    """One unit of a wide product, for all units."""

    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h[:, :1]),)


@pytest.mark.parametrize("cell_cls", [ManyGatesCell, FirstUnitCell])
def test_products_that_a_tile_cannot_be_split_into_are_several(cell_cls):
    check_backend(cell_cls(3, 17), "triton", steps=(2,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


@pytest.mark.parametrize("split", [1, 2, 8])
@pytest.mark.parametrize("resident", [True, False])
def test_products_in_pieces_agree_with_the_reference(split, resident, using):
    using(loops("grid", split=split, resident=resident, depth=16 * split))

    check_backend(GRUCell(3, 40), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


@pytest.fixture
def check_together(using, monkeypatch):
    """Check a cell with several programs a group, of which chance says who goes on."""
    from seqnets.engine.triton import loops as module
    from seqnets.engine.triton.tiles import Device
    from tests.engine.triton.together import let_programs_take_turns

    def check(cell, seed):
        monkeypatch.setattr(module, "device_of", lambda like: Device(132, 232448))
        launches = let_programs_take_turns(monkeypatch, seed)
        using(module.TritonLoops("grid"))
        check_backend(cell, "triton", steps=(4,), dtypes=FLOAT32, variants=ALL_AT_ONCE)
        assert launches

    return check


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell_cls", [LSTMCell, OriginalGRUCell])
def test_programs_that_meet_agree_whichever_goes_on_first(cell_cls, seed, check_together):
    check_together(cell_cls(3, 40), seed)


@pytest.mark.slow
@pytest.mark.parametrize("cell_cls", TRACED_CELLS)
def test_programs_of_every_cell_agree_whichever_goes_on_first(cell_cls, check_together):
    few = {"unfolds": 1} if cell_cls is NCPCell else {}
    cell = smooth(sized(cell_cls, 3, 20 if cell_cls in PAIRING_CELLS else 40, **few))
    if not program_of(cell).step.products:
        pytest.skip("no program needs what another one computes")
    check_together(cell, 0)


@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_the_state_that_a_reset_puts_in_agrees(mode, using):
    using(loops(mode))
    cell = LearnedState(GRUCell(3, 6))

    check_backend(cell, "triton", steps=(4,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


@pytest.mark.parametrize("mode", MODES)
def test_masks_and_norms_run_inside_the_kernels(mode, using):
    using(loops(mode))
    cell = Zoneout(LayerNorm(LSTMCell(3, 6)), p=0.3).eval()

    check_backend(cell, "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_stored_and_computed_in_single(mode, using):
    using(loops(mode))
    cell = LSTMCell(3, 6)
    x = torch.randn(2, 20, 3)

    y, (h, c) = unroll(cell.half(), x.half(), backend="triton")

    exact, (_, memory) = unroll(cell.double(), x.double(), backend="reference")
    assert y.dtype == h.dtype == c.dtype == torch.float16
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-3)
    torch.testing.assert_close(c.double(), memory, rtol=0, atol=2e-3)


class EqualCell(GatedCell):
    """The units that are among some others, which include the last one: itself."""

    gates = ("h",)

    def update(self, wx, uh, state):
        (u,) = uh
        found = self.among(torch.sigmoid(wx.h) * state[0] + u, state[0])
        return (torch.tanh(wx.h + u) / 3 + found.to(u.dtype),)


AMONG = {
    "a state": lambda u, h: h == h[:, -1:],
    "numbers of a state and a product": lambda u, h: torch.tanh(u) - torch.tanh(u[:, -1:]) == 0,
    "repeated units": lambda u, h: u == u.repeat_interleave(2, -1)[:, 1::2],
    "moved units": lambda u, h: (
        u == torch.stack([u, u.sin()], 1).transpose(1, 2).flatten(1)[:, ::2]
    ),
    "units in pairs": lambda u, h: (u[:, :, None] == u[:, None]).to(u.dtype).sum(-1) >= 1,
}


@pytest.mark.parametrize("among", AMONG.values(), ids=AMONG)
def test_a_unit_of_half_precision_equals_itself(among, using):
    using(loops("rows"))
    cell = type("Custom", (EqualCell,), {"among": staticmethod(among)})(3, 5).half()

    y, _ = unroll(cell, torch.randn(4, 6, 3).half(), backend="triton")

    assert (y[..., -1] > 0.5).all()


def test_autocast_computes_in_its_own_dtype_and_gradients_in_the_parameters(using):
    using(loops("rows"))
    layer = Recurrent(GRUCell(3, 6), backend="triton")
    x = torch.randn(2, 5, 3, requires_grad=True)
    exact, _ = unroll(layer.cell, x, backend="reference")
    (expected,) = torch.autograd.grad(exact.sum(), x)

    with torch.autocast("cpu", torch.float16):
        y, _ = layer(x)
    y.sum().backward()

    assert y.dtype == torch.float16
    assert layer.cell.weight_hh.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=2e-3)
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_lean_memory_gives_the_same_gradients(mode, using, monkeypatch):
    using(loops(mode))
    monkeypatch.setattr(fused, "_LEAN_STEPS", 4)
    cell, x = GRUCell(3, 6), torch.randn(2, 10, 3, requires_grad=True)

    found = []
    for memory in ("full", "lean"):
        y, _ = unroll(cell, x, backend="triton", memory=memory)
        found.append(torch.autograd.grad(y.square().sum(), (x, *cell.parameters())))

    for full, lean in zip(*found, strict=True):
        torch.testing.assert_close(lean, full, rtol=0, atol=1e-4)


@pytest.mark.parametrize("left", ["grid", "step"])
def test_what_takes_more_than_the_device_has_runs_in_another_mode(left, using, monkeypatch):
    from triton.runtime.errors import OutOfResources

    from seqnets.engine.triton.tiles import Device

    made = loops("rows")
    using(made)
    module = sys.modules[type(made).__module__]
    run = module.Pass.run

    def limited(self, *arguments):
        if self.tiles.mode not in (left, "step"):
            raise OutOfResources(2, 1, "shared memory")
        run(self, *arguments)

    monkeypatch.setattr(module.Pass, "run", limited)
    monkeypatch.setattr(module, "device_of", lambda like: Device(processors=4, memory=2**17))

    check_backend(GRUCell(3, 5), "triton", steps=(3,), dtypes=FLOAT32, variants=ALL_AT_ONCE)
    assert [each.tiles.mode for each in made._passes.values()][-1] == left


def test_a_derivative_of_a_derivative_comes_from_the_plain_loop(using):
    using(loops("rows"))
    cell, x = GRUCell(3, 4).double(), torch.randn(2, 3, 3, requires_grad=True)
    seconds = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        y, _ = unroll(cell.to(dtype), x.to(dtype), backend=backend)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])

    torch.testing.assert_close(*seconds, rtol=0, atol=1e-5)


def test_the_compiler_asks_it_without_a_break():
    cell, x = LSTMCell(3, 6), torch.randn(2, 5, 3)
    layer = Recurrent(cell, backend="triton")

    y, _ = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)

    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


def test_gradients_of_the_compilers_operator_are_tensors_of_their_own(using, monkeypatch):
    using(loops("rows"))
    monkeypatch.setattr(operator, "_loops", lambda *_: access.printed_loops())
    cell, x = PeepholeLSTMCell(3, 6), torch.randn(2, 5, 3)
    layer = torch.compile(Recurrent(cell), fullgraph=True, backend="aot_eager")

    found = torch.autograd.grad(layer(x)[0].square().sum(), tuple(cell.parameters()))

    y, _ = unroll(cell, x, backend="reference")
    expected = torch.autograd.grad(y.square().sum(), tuple(cell.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(2, 3, 3, dtype=torch.float64), "not in torch.float64"),
        (torch.zeros(2, 3, 3, dtype=torch.bfloat16), "no products of bfloat16"),
        (torch.zeros(2, 0, 3), "at least one row and one step"),
        (torch.zeros(1, 1, 1).expand(2**20, 2, 3), "at most 524280 rows"),
        (torch.zeros(1, 1, 1).expand(2**16, 2**15, 3), r"2\^31 steps of all rows"),
    ],
)
def test_what_it_cannot_run_is_refused_with_the_reason(x, reason):
    with pytest.raises(BackendError, match=reason):
        unroll(LSTMCell(3, 4).to(x.dtype), x, backend="triton")


def test_without_a_gpu_or_the_interpreter_it_refuses(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")

    with pytest.raises(BackendError, match="it runs on cuda, not on cpu"):
        unroll(LSTMCell(3, 4), torch.zeros(2, 3, 3), backend="triton")


def test_gpus_that_do_not_read_ptx_are_refused(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")

    assert "not on AMD's" in access.refusal(torch.device("cuda"), torch.float32)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("find_spec", "Triton is not installed"), ("which", "needs a C compiler")],
)
def test_what_triton_lacks_is_the_reason(name, reason, monkeypatch):
    home = access.importlib.util if name == "find_spec" else access.shutil
    monkeypatch.setattr(home, name, lambda _: None)
    monkeypatch.setattr(access, "interpreted", lambda: False)
    access._missing.cache_clear()

    told = access.refusal(torch.device("cuda"), torch.float32)

    access._missing.cache_clear()
    assert reason in told


def test_an_explanation_says_how_the_work_is_shared(using):
    using(loops("rows"))

    request = make_request(LSTMCell(3, 4), torch.zeros(20, 5, 3), None, None, None, False)

    assert triton.detail(request).startswith("one launch, each program alone with its rows, 2 x 1")


def compiled(*arguments):
    """Compile kernels for a GPU that need not be there, in a process without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "tests.engine.triton.compiled", *arguments],
        cwd=Path(__file__).parents[3],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_kernels_compile_for_a_gpu_and_nothing_spills():
    done = compiled("LSTMCell", "--few", "GRUCell", "OriginalGRUCell", "MinGRUCell")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_kernels_of_every_cell_compile_for_a_gpu_and_nothing_spills(share):
    users = "TimeAwareLSTMCell", "LegendreCell", "TorchCell", "PreparedCell", "HeadsCell"
    every = [*(cell.__name__ for cell in TRACED_CELLS), *users]
    done = compiled(*every[share::SHARES])

    assert done.returncode == 0, done.stdout + done.stderr
