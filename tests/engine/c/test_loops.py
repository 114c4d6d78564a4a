"""The loops in C against the reference: sizes, options, threads, layouts and memory."""

import os
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

import seqnets
from seqnets import Recurrent, unroll
from seqnets.cells import (
    GRUCell,
    JANETCell,
    LayerNorm,
    LSTMCell,
    MinGRUCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    PhasedLSTMCell,
    RNNCell,
    SRUCell,
    Zoneout,
)
from seqnets.engine import compiling, operator, runs
from seqnets.engine.c import compiler, loops
from seqnets.engine.c.text import with_headers
from seqnets.engine.gradients import parameter_gradients
from seqnets.engine.plans import plan_of
from seqnets.engine.request import make_request
from seqnets.errors import DtypeError
from seqnets.layers import Stream
from seqnets.testing import check_backend
from seqnets.testing.backend import poisoned_memory
from tests.engine.user_cells import (
    SHARING,
    USER_CELLS,
    AveragingCell,
    BareCell,
    LeakyCell,
    MGUCell,
    ZoneoutCell,
)
from tests.slow import mostly_slow

try:
    compiler.compiler()
except compiler.NoCompiler as reason:
    pytest.skip(str(reason), allow_module_level=True)

OPTIONS = {
    "projected": partial(LSTMCell, proj_size=2),
    "without bias": partial(LSTMCell, bias=False),
    "relu": partial(RNNCell, nonlinearity="relu"),
}
SPLITS = [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (6, 3)]


@pytest.mark.parametrize(
    ("cell_cls", "hidden_size", "steps"),
    [(LSTMCell, 1, 257), (OriginalGRUCell, 64, 63), (GRUCell, 3, 63), (LSTMCell, 257, 5)],
)
def test_widths_and_times_of_all_kinds_agree_with_the_reference(cell_cls, hidden_size, steps):
    assert check_backend(cell_cls(3, hidden_size), "c", steps=(1, steps)) == {}


@pytest.mark.parametrize("options", OPTIONS)
def test_cells_options_agree_with_the_reference(options):
    assert check_backend(OPTIONS[options](3, 19), "c", steps=(1, 2, 63)) == {}


def split_work(monkeypatch, threads, row_groups):
    before = loops.settings_of

    def settings_of(*arguments, **options):
        return before(*arguments, **options)._replace(threads=threads, row_groups=row_groups)

    monkeypatch.setattr(loops, "settings_of", settings_of)


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize(
    "cell_cls", [PeepholeLSTMCell, OriginalGRUCell, *mostly_slow(USER_CELLS, quick=SHARING)]
)
def test_work_may_be_split_among_threads_in_any_way(cell_cls, split, monkeypatch):
    split_work(monkeypatch, *split)

    check_backend(cell_cls(3, 70), "c", steps=(5,), dtypes=(torch.float64,))


def everything(cell, x, backend="c", **options):
    y, state = unroll(cell, x, backend=backend, **options)
    loss = y.cos().sum() + sum(part.sum() for part in state)
    wanted = [x, *cell.parameters()]
    return y, *state, *torch.autograd.grad(loss, wanted, materialize_grads=True)


@pytest.mark.parametrize(
    ("cell", "B", "T", "threads_and_groups"),
    [
        pytest.param(LSTMCell(8, 8), 1, 100, (1, 1), id="one thread for little work"),
        pytest.param(LSTMCell(8, 64), 4, 1, (4, 1), id="units of a few rows"),
        pytest.param(LSTMCell(8, 64), 32, 1, (4, 4), id="many rows"),
        pytest.param(LSTMCell(8, 256), 32, 1, (4, 1), id="units where weights are large"),
        pytest.param(LSTMCell(8, 24), 16, 1, (4, 4), id="rows where units are few"),
        pytest.param(MinGRUCell(8, 64), 2, 10, (1, 1), id="few steps without weights"),
        pytest.param(MinGRUCell(8, 64), 2, 1000, (4, 1), id="many steps without weights"),
    ],
)
def test_threads_divide_rows_or_units_by_the_work_of_each(cell, B, T, threads_and_groups):
    program = plan_of(cell).program

    assert loops.threads_and_groups(program, 8, B, T, most_threads=4) == threads_and_groups


def test_the_number_of_threads_changes_no_more_than_rounding():
    cell, x = GRUCell(64, 128), torch.randn(32, 20, 64, requires_grad=True)
    before = torch.get_num_threads()

    try:
        torch.set_num_threads(1)
        alone = everything(cell, x)
        torch.set_num_threads(2)
        together = everything(cell, x)
    finally:
        torch.set_num_threads(before)

    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


LAST_OF_MANY = """
static int last(void) { return 99; }
static int many(void) { return 100; }

__attribute__((visibility("default"))) int stays_in_its_team(void) {
    Team team = {.rows = 800, .threads = 100, .row_groups = 100, .thread = last, .team = many};
    const char *place = (const char *)share(&team).own;
    return !place || place < (const char *)(&team + 1);
}
"""


def test_a_thread_beside_many_others_looks_at_nothing_outside_of_its_team():
    text = with_headers(LAST_OF_MANY, "vector.h", "loops.h", double=False)

    assert compiler.load(text).stays_in_its_team()


class OverlappingCell(BareCell):
    """Two pieces of a parameter that have numbers in common."""

    def make(self, I, H):
        self.scale, self.u = self.weight(H + 1), self.weight(H, H)

    def step(self, x, state):
        (h,) = state
        return (torch.tanh(self.scale[1:] * h + self.scale[:-1] * x + h @ self.u),)


def test_pieces_of_a_parameter_that_overlap_get_all_of_their_gradient(monkeypatch):
    cell = OverlappingCell(32, 32).double()
    x = torch.randn(1, 1000, 32, dtype=torch.float64, requires_grad=True)
    alone = everything(cell, x)

    split_work(monkeypatch, threads=2, row_groups=1)

    for _ in range(5):  # threads that add to one number lose some of it, as chance will have it
        torch.testing.assert_close(everything(cell, x), alone, rtol=1e-10, atol=1e-10)


def test_the_same_input_gives_the_same_bits():
    cell, x = LSTMCell(64, 128), torch.randn(32, 20, 64, requires_grad=True)

    torch.testing.assert_close(everything(cell, x), everything(cell, x), rtol=0, atol=0)


def test_a_row_has_the_same_bits_in_any_batch():
    cell, x = GRUCell(8, 70), torch.randn(33, 20, 8)

    together = unroll(cell, x, backend="c")[0]

    for b in (0, 31, 32):
        alone = unroll(cell, x[b : b + 1], backend="c")[0]
        torch.testing.assert_close(alone[0], together[b], rtol=0, atol=2e-6)


@pytest.mark.parametrize("cell_cls", [GRUCell, LeakyCell])
def test_time_may_come_first_in_memory_and_does_in_what_comes_out(cell_cls):
    cell, x = cell_cls(3, 20), torch.randn(7, 5, 3).transpose(0, 1)

    y, _ = unroll(cell, x, backend="c")

    assert y.transpose(0, 1).is_contiguous()
    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell_cls", [LSTMCell, OriginalGRUCell, MGUCell, LeakyCell, AveragingCell])
def test_lean_memory_gives_the_same_gradients(cell_cls, reverse):
    cell, T = cell_cls(3, 20).double(), 150
    x = torch.randn(5, T, 3, dtype=torch.float64, requires_grad=True)
    options = {
        "lengths": torch.tensor([T, 0, 64, 65, 149]),
        "resets": torch.rand(5, T) < 0.1,
        "reverse": reverse,
    }

    lean = everything(cell, x, memory="lean", **options)

    torch.testing.assert_close(lean, everything(cell, x, **options), rtol=0, atol=1e-10)


def test_lean_memory_keeps_less():
    cell, x = LSTMCell(8, 64), torch.randn(8, 256, 8)
    kept = {}

    for memory in ("full", "lean"):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            unroll(cell, x, backend="c", memory=memory)
        kept[memory] = sum(sizes)

    assert kept["lean"] < 0.5 * kept["full"]


@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_saved_tensors_may_come_back_in_another_layout(backend, memory):
    cell, x = LSTMCell(3, 5), torch.randn(2, 70, 3, requires_grad=True)
    options = {"lengths": torch.tensor([70, 9]), "resets": torch.rand(2, 70) < 0.1}
    expected = everything(cell, x, backend=backend, **options)

    with torch.autograd.graph.saved_tensors_hooks(
        lambda saved: torch.stack([saved, saved], -1), lambda pair: pair[..., 0]
    ):
        found = everything(cell, x, backend=backend, memory=memory, **options)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("memory", ["full", "lean"])
def test_saved_tensors_may_not_come_back_in_another_dtype(memory, dtype):
    def pack(saved):
        return saved.to(dtype) if saved.is_floating_point() else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        y, _ = unroll(LSTMCell(3, 5), torch.randn(2, 70, 3), backend="c", memory=memory)

    with pytest.raises(DtypeError, match=f"came back as {dtype}, expected torch.float32"):
        y.sum().backward()


def test_saved_lengths_may_come_back_as_smaller_integers():
    cell, x = LSTMCell(3, 5), torch.randn(2, 70, 3, requires_grad=True)
    lengths = torch.tensor([70, 9])
    expected = everything(cell, x, backend="c", lengths=lengths)

    def pack(saved):
        return saved.int() if saved.dtype == torch.int64 else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        found = everything(cell, x, backend="c", lengths=lengths)

    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_what_a_layer_reads_is_freed_within_a_checkpoint(backend):
    cell, read = LSTMCell(3, 3), []

    def two_layers(x):
        between = 2 * unroll(cell, x, backend=backend)[0]
        read.append(StorageWeakRef(between.untyped_storage()))
        return unroll(cell, between, backend=backend)[0]

    y = checkpoint(two_layers, torch.randn(2, 5, 3), use_reentrant=False)

    assert y.requires_grad
    assert read[0].expired()


def test_gradients_of_gradients_leave_for_the_plain_loop():
    cell = MGUCell(3, 4).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradgradcheck(
        lambda x: unroll(cell, x, backend="c")[0], (x,), fast_mode=True
    )


def test_a_parameter_that_was_changed_between_the_passes_is_noticed():
    cell, x = GRUCell(3, 4), torch.randn(2, 5, 3)
    y, _ = unroll(cell, x, backend="c")

    with torch.no_grad():
        cell.weight_hh.add_(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("backend", ["c", "eager"])
@pytest.mark.parametrize(
    ("name", "order"),
    [("lengths", torch.tensor([5, 2])), ("resets", torch.rand(2, 5) < 0.4)],
)
def test_an_order_that_was_changed_between_the_passes_is_noticed(name, order, backend):
    cell, x, order = GRUCell(3, 4), torch.randn(2, 5, 3), order.clone()
    y, _ = unroll(cell, x, **{name: order}, backend=backend)

    order.fill_(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_gradient_to_be_differentiated_is_that_of_the_mode_of_the_forward_pass(backend):
    cell = LayerNorm(Zoneout(GRUCell(3, 4), 0.5)).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y, _ = unroll(cell, x, backend=backend)
    (expected,) = torch.autograd.grad(y.sum(), x, retain_graph=True)

    cell.eval()
    (found,) = torch.autograd.grad(y.sum(), x, create_graph=True)

    torch.testing.assert_close(found, expected)
    assert not any(module.training for module in cell.modules())


def test_only_what_needs_a_gradient_gets_one():
    cell, x = GRUCell(3, 4), torch.randn(2, 5, 3)
    cell.weight_ih.requires_grad_(False)
    cell.bias_hh.requires_grad_(False)

    unroll(cell, x, backend="c")[0].sum().backward()

    assert cell.weight_ih.grad is None
    assert cell.bias_hh.grad is None
    assert cell.weight_hh.grad is not None


def test_parametrised_weights_get_their_gradients():
    cell = torch.nn.utils.parametrizations.orthogonal(RNNCell(3, 8), "weight_hh")
    x = torch.randn(2, 5, 3)
    found = {}

    for backend in ("c", "reference"):
        cell.zero_grad()
        unroll(cell, x, backend=backend)[0].sum().backward()
        found[backend] = [p.grad.clone() for p in cell.parameters()]

    torch.testing.assert_close(found["c"], found["reference"])


def test_weights_that_are_not_contiguous_are_read_right():
    cell, x = GRUCell(3, 8), torch.randn(2, 5, 3)
    cell.weight_hh = torch.nn.Parameter(torch.randn(8, 24).T)

    y, _ = unroll(cell, x, backend="c")

    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


def _opposite(tensor):
    """The same numbers, stored as their opposites."""
    return torch._neg_view(-tensor).requires_grad_()


@pytest.mark.parametrize("cell_cls", [LSTMCell, SRUCell])
@pytest.mark.parametrize("needed", [False, True])
def test_numbers_that_are_stored_as_their_opposites_are_read_right(cell_cls, needed):
    cell = cell_cls(5, 40, dtype=torch.float64)
    sizes = (4, 6, 5), *((4, size) for size in cell.state_sizes)
    parts = [torch.randn(size, dtype=torch.float64) for size in sizes]
    results = []

    for backend in "c", "reference":
        given = [*map(_opposite, parts)]
        with torch.set_grad_enabled(needed):
            y, final = unroll(cell, given[0], tuple(given[1:]), backend=backend)
        grads = [_opposite(torch.ones_like(part)) for part in (y, *final)]
        found = ()
        if needed:
            found = torch.autograd.grad((y, *final), given, grads, materialize_grads=True)
        results.append((y, final, found))

    torch.testing.assert_close(*results)


def test_a_stream_reads_weights_that_are_not_contiguous_right():
    cell, x = GRUCell(3, 8), torch.randn(2, 5, 3)
    cell.weight_hh = torch.nn.Parameter(torch.randn(8, 24).T)

    stream = Stream(Recurrent(cell), batch_size=2)
    y = torch.stack([stream(step).clone() for step in x.unbind(1)], 1)

    assert stream.backend == "c"
    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])


def test_masks_come_with_the_projection_and_act_inside_the_loop():
    cell, x = ZoneoutCell(3, 50), torch.randn(2, 9, 3)

    y, _ = unroll(cell, x, backend="c")

    held = (y[:, 1:] == y[:, :-1]).double().mean()
    assert 0.2 < held < 0.4


REFUSED = {
    "no rows": (lambda x: x[:0], "at least one row"),
    "no steps": (lambda x: x[:, :0], "at least one row and one step"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_does_not_run_is_refused_with_the_reason(case):
    change, reason = REFUSED[case]
    x = change(torch.randn(2, 5, 3))

    said = seqnets.explain(GRUCell(3, 4).to(x.dtype), x).refusals["c"]

    assert reason in said


class Fickle(GRUCell):
    def update(self, wx, uh, state):
        (h,) = super().update(wx, uh, state)
        return (h + torch.rand_like(h),)


def test_an_operation_it_does_not_know_is_named_and_auto_takes_the_plain_loop():
    explanation = seqnets.explain(Fickle(3, 4), torch.randn(2, 5, 3))

    assert explanation.chosen == "reference"
    assert "aten.rand_like" in explanation.refusals["c"]


@pytest.fixture
def nothing_compiled(monkeypatch):
    """No loops were compiled or refused, and nothing was said of it; afterwards as before."""
    monkeypatch.setattr(loops.C_LOOPS, "_libraries", {})
    monkeypatch.setattr(loops.C_LOOPS, "_refused", {})
    monkeypatch.setattr(loops.compiler, "_loaded", {})
    monkeypatch.setattr(loops.compiler, "_refused", {})
    seqnets.engine.c._say_once.cache_clear()


def test_without_a_compiler_another_way_is_taken_and_the_reason_said(monkeypatch, nothing_compiled):
    monkeypatch.setenv("CC", "there-is-no-such-compiler")
    cell = RNNCell(3, 4, nonlinearity="relu", bias=False).double()
    monkeypatch.setenv("SEQNETS_CACHE", "/nonexistent")
    x = torch.randn(2, 5, 3, dtype=torch.float64)

    message = "which is slower: .*there-is-no-such-compiler.* apt"
    with pytest.warns(UserWarning, match=message) as told:
        explanation = seqnets.explain(cell, x)
    assert told[0].filename == __file__  # where the user's code calls
    seqnets.explain(cell, x)  # would raise if it warned again

    assert explanation.chosen != "c"
    assert "there-is-no-such-compiler" in explanation.refusals["c"]


def test_on_windows_linux_is_advised(tmp_path, monkeypatch, nothing_compiled):
    monkeypatch.setattr(loops.compiler.sys, "platform", "win32")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))

    with pytest.warns(UserWarning, match="not on Windows. Linux makes them fast, in WSL"):
        seqnets.explain(RNNCell(3, 4, nonlinearity="relu", bias=False), torch.randn(2, 5, 3))


def test_where_a_compiler_fails_another_is_advised(tmp_path, monkeypatch, nothing_compiled):
    monkeypatch.setenv("CC", "false")  # a program that does nothing, and fails
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))

    with pytest.warns(
        UserWarning, match=r"exit status 1\. Another C compiler than .*false .* CC\.$"
    ):
        seqnets.explain(RNNCell(3, 4, nonlinearity="relu", bias=False), torch.randn(2, 5, 3))


@pytest.mark.skipif(sys.platform != "linux", reason="where file systems tell it")
def test_where_code_runs_from_no_folder_another_folder_is_advised(
    tmp_path, monkeypatch, nothing_compiled
):
    noexec = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr(loops.compiler.os, "statvfs", lambda folder: noexec)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))

    with pytest.warns(UserWarning, match=r"mounted noexec: \S+\. A folder .* SEQNETS_CACHE\.$"):
        seqnets.explain(RNNCell(3, 4, nonlinearity="relu", bias=False), torch.randn(2, 5, 3))


def test_without_a_compiler_nothing_is_printed_again_until_there_may_be_one(tmp_path, monkeypatch):
    cell, x = RNNCell(3, 9, nonlinearity="relu", bias=False), torch.randn(2, 5, 3)
    fresh, library = loops.CLoops(), loops.Library
    program = make_request(cell, x, None, None, None, False).program
    printed = []
    monkeypatch.setattr(loops, "Library", lambda *of: printed.append(1) or library(*of))
    monkeypatch.setenv("CC", "there-is-no-such-compiler")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))

    for _ in range(3):
        with pytest.raises(compiler.NoCompiler):
            fresh.library(program, x.dtype)
    assert printed == [1]

    monkeypatch.delenv("CC")
    assert fresh.library(program, x.dtype).lanes


def test_a_layer_takes_it_by_itself():
    before = runs["c"]

    Recurrent(MGUCell(3, 4))(torch.randn(2, 5, 3))

    assert runs["c"] == before + 1


def test_a_compiled_layer_is_one_operator_with_the_same_numbers():
    layer, x = Recurrent(MGUCell(3, 4)), torch.randn(2, 5, 3, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")

    outcomes = []
    for run in (compiled, layer):
        y, (h,) = run(x, lengths=torch.tensor([5, 2]))
        loss = y.cos().sum() + h.sum()
        outcomes.append((y, h, *torch.autograd.grad(loss, [x, *layer.parameters()])))

    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (
            lambda: PhasedLSTMCell(3, 4, periods=(2.0, 9.0), leak=0.5),
            [lambda cell: cell.eval()],
        ),
        (
            lambda: Zoneout(JANETCell(3, 4), 0.5).eval(),
            [partial(lambda beta, cell: setattr(cell.cell, "beta", beta), b) for b in (-3.0, 2.5)],
        ),
        (lambda: RNNCell(3, 4), [lambda cell: setattr(cell, "nonlinearity", "relu")]),
    ],
    ids=["its mode", "a number of a cell inside", "a word"],
)
def test_a_compiled_layer_sees_when_the_cell_changes(make, changes):
    layer, x = Recurrent(make()), torch.randn(2, 50, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")

    before = compiled(x)[0]
    for change in changes:
        change(layer.cell)

        torch.testing.assert_close(compiled(x), layer(x))
        assert (compiled(x)[0] - before).abs().max() > 1e-4


def test_an_exported_layer_takes_any_batch_and_any_number_of_steps():
    layer = Recurrent(MGUCell(3, 4))
    sizes = {0: torch.export.Dim("B", max=64), 1: torch.export.Dim("T", max=512)}

    exported = torch.export.export(layer, (torch.randn(2, 5, 3),), dynamic_shapes={"x": sizes})

    called = [str(node.target) for node in exported.graph.nodes]
    assert called.count("seqnets.unroll.default") == 1
    for B, T in ((1, 1), (7, 33)):
        x = torch.randn(B, T, 3)
        torch.testing.assert_close(exported.module()(x), layer(x))


@pytest.mark.parametrize("cell_cls", [PeepholeLSTMCell, OriginalGRUCell])
def test_the_operators_pass_torchs_own_checks(cell_cls):
    cell = cell_cls(3, 4).double()
    cell.weight_hh.data = cell.weight_hh.data.T.contiguous().T  # its gradient has another layout
    used, parts = compiling.parameters_used(cell), len(cell.states)
    parameters = [getattr(cell, name).detach().requires_grad_() for name in used]
    state = [torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(parts)]
    wx = torch.randn(2, 5, 4 * len(cell.gates), dtype=torch.float64, requires_grad=True)
    lengths, resets = torch.tensor([5, 2]), torch.rand(2, 5) < 0.4
    options = lengths, resets, True, True, compiling.text_of(cell)

    def outputs(wx, *given):
        given = [*given[:parts], *state, *given[parts:]]
        return torch.ops.seqnets.unroll(wx, given, *options)[: 1 + parts]

    given = wx, [*state, *state, *parameters], *options
    torch.library.opcheck(torch.ops.seqnets.unroll.default, given)
    assert torch.autograd.gradgradcheck(outputs, (wx, *state, *parameters), fast_mode=True)

    with torch.no_grad():
        y, *others = torch.ops.seqnets.unroll(*given)
        last, kept = others[:parts], others[parts:]
        back = kept, y, last, [p.clone() for p in parameters], lengths, resets, True, options[-1]
    torch.library.opcheck(torch.ops.seqnets.unroll_backward.default, back)


def test_the_operator_computes_no_gradients_of_constants(monkeypatch):
    class Turning(BareCell):
        def make(self, I, H):
            self.weight_hh = self.weight(H, H)

        def step(self, x, state):
            return (torch.tanh(x + state[0].flip(-1) @ self.weight_hh),)

    layer, x = Recurrent(Turning(4, 4)), torch.randn(2, 3, 4, requires_grad=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    names = []

    def recorded(*arguments):
        found = parameter_gradients(*arguments)
        names.extend(found)
        return found

    monkeypatch.setattr(operator, "parameter_gradients", recorded)
    outcomes = [
        torch.autograd.grad(run(x)[0].sum(), [x, layer.cell.weight_hh]) for run in (compiled, layer)
    ]

    torch.testing.assert_close(*outcomes)
    assert names == ["weight_hh"]


def test_the_operator_reads_lengths_that_share_a_place_in_memory():
    cell, wx = RNNCell(3, 4), torch.randn(3, 5, 4)
    text = compiling.text_of(cell)
    used = [cell.weight_hh.detach(), cell.bias_hh.detach()]
    shared = torch.tensor([2]).expand(3)

    found = [
        torch.ops.seqnets.unroll(wx, [torch.zeros(3, 4), *used], n, None, False, False, text)
        for n in (shared, torch.tensor([2, 2, 2]))
    ]

    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell_cls", [GRUCell, LSTMCell, OriginalGRUCell])
@pytest.mark.parametrize("order", ["falling", "rising", "none with all steps", "time first"])
def test_rows_that_have_ended_are_passed_by_and_change_nothing(cell_cls, order, reverse):
    cell, x = cell_cls(3, 10).double(), torch.randn(40, 9, 3, dtype=torch.float64)
    if order == "time first":
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    lengths = torch.tensor([9] * 3 + [4] * 17 + [1] * 10 + [0] * 10)
    if order == "rising":
        lengths = lengths.flip(0)
    elif order == "none with all steps":
        lengths = lengths.clamp(max=6)
    state = tuple(torch.randn(40, size, dtype=torch.float64) for size in cell.state_sizes)
    wanted = [x.requires_grad_(), *(part.requires_grad_() for part in state), *cell.parameters()]

    found = []
    for backend in ("c", "reference"):
        with poisoned_memory():
            y, after = unroll(cell, x, state, lengths, reverse=reverse, backend=backend)
            total = y.square().sum() + sum((part * part).sum() for part in after)
            found.append((y, *after, *torch.autograd.grad(total, wanted)))

    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def _moved(places):
    """The matrix that puts unit ``places[j]`` into place j."""
    return torch.eye(len(places), dtype=torch.float64)[torch.as_tensor(places)]


_NUMBERS = torch.randn(450, 450, generator=torch.Generator().manual_seed(0))
SPARSE = {
    "nothing": torch.zeros(70, 70),
    "one number": torch.eye(70) * (torch.arange(70) == 69),
    "the same place": torch.eye(300),
    "the opposite place": _moved(range(299, -1, -1)),
    "the next place": torch.eye(70).roll(1, 0),
    "far places": _moved(torch.arange(300).view(6, 50).T.flatten()),
    "far numbers, and none": _moved(torch.arange(300).view(6, 50).T.flatten())
    * _NUMBERS[0, :300].mul(torch.arange(300) % 7 > 0)[:, None],
    "blocks": torch.block_diag(*_NUMBERS[:300, :50].view(6, 50, 50)),
    "half of it": _NUMBERS[:300, :300].tril(),
    "every third": _NUMBERS * (torch.arange(450) % 3 == 0),
    "two ends": _NUMBERS[:70, :70] * (torch.arange(70) % 69 == 0),
    "a few rows": _NUMBERS[:70, :70] * (torch.arange(70) % 30 == 0)[:, None],
    "minus zero": -torch.zeros(70, 70),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_zeros_in_a_weight_change_nothing(kind):
    weight = SPARSE[kind].double()
    weight = weight / weight.abs().sum(1).max().clamp(min=1)
    for cell_cls in (RNNCell, GRUCell):
        cell = cell_cls(3, len(weight), dtype=torch.float64)
        with torch.no_grad():
            cell.weight_hh.copy_(weight.repeat(len(cell.weight_hh) // len(weight), 1))

        for B in (1, 14):
            x = torch.randn(B, 4, 3, dtype=torch.float64, requires_grad=True)
            found, expected = (everything(cell, x, each) for each in ("c", "reference"))
            torch.testing.assert_close(found, expected)
            stream = Stream(Recurrent(cell), batch_size=B)
            steps = [stream(each).clone() for each in x.detach().unbind(1)]
            torch.testing.assert_close(torch.stack(steps, 1), expected[0])


def test_units_that_are_moved_far_leave_infinite_ones_where_they_were():
    places = torch.arange(300).view(6, 50).T.flatten()
    cell = RNNCell(3, 300, dtype=torch.float64)
    with torch.no_grad():
        cell.weight_hh.copy_(_moved(places) * (torch.arange(300) % 7 > 0)[:, None])
    state = torch.zeros(2, 300, dtype=torch.float64)
    state[:, [0, 51, 100]] = torch.tensor([torch.inf, torch.nan, -torch.inf], dtype=torch.float64)

    y, _ = unroll(cell, torch.zeros(2, 1, 3, dtype=torch.float64), (state,), backend="c")

    kept = torch.isin(places, torch.tensor([51])) & (torch.arange(300) % 7 > 0)
    assert torch.equal(y[:, 0].isnan(), kept.expand(2, -1))
