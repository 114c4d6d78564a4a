"""Cells with a matrix memory, all steps at once: what the plain loop computes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jvp, vmap

from seqnets import Recurrent, Stream, explain, unroll
from seqnets.cells import (
    Access,
    AllStates,
    DeltaNetCell,
    DeltaProductCell,
    GatedDeltaNetCell,
    InputDropout,
    LearnedState,
    MatrixMemoryCell,
    MLSTMCell,
    RetentionCell,
    RWKV6Cell,
    RWKV7Cell,
    Zoneout,
)
from seqnets.engine import runs
from seqnets.engine.matrix_memory import carry, chunks, remember
from seqnets.errors import BackendError, ConfigError, ShapeError
from seqnets.testing import check_backend
from seqnets.testing.laws import perturb
from tests.cells.final import MATRIX_CELLS
from tests.engine.derivatives import second_derivatives

B, T, I = 3, 11, 3
FLOAT64 = (torch.float64,)


@pytest.fixture
def _short_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "_STEPS", 4)


def make(cell_cls, dtype=torch.float64, **options):
    cell = cell_cls(I, 6, num_heads=2, key_size=4, dtype=dtype, **options)
    perturb(cell)
    return cell


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_all_steps_at_once_are_the_plain_loop_and_nothing_is_refused(cell_cls):
    before = runs["scan"]

    assert check_backend(make(cell_cls), "scan", steps=(1, 3, 4, 9), dtypes=FLOAT64) == {}
    assert runs["scan"] > before


@pytest.mark.parametrize("cell_cls", [MLSTMCell, GatedDeltaNetCell, RWKV6Cell, RWKV7Cell])
def test_in_float32_they_are_as_precise_as_the_plain_loop(cell_cls):
    assert check_backend(make(cell_cls), "scan", steps=(33, 70), dtypes=(torch.float32,)) == {}


class FadingCell(MatrixMemoryCell):
    """The input is a value, a query, a key and the logarithm of what is kept, as they are."""

    gates = ("v",)
    key_gates = ("decay",)

    def project(self, x):
        return x

    def access(self, wx):
        at = self.parts(wx)
        return Access(at.q, at.k, at.v, at.decay)


class FadingHeadsCell(FadingCell):
    """All keys of a head fade alike."""

    key_gates = ()
    head_gates = ("decay",)


class ReplacingCell(FadingHeadsCell):
    """What a key finds is replaced, or more than that."""

    head_gates = ("rate", "decay")

    def access(self, wx):
        at = self.parts(wx)
        k = at.k / (1 + at.k.norm(dim=-1, keepdim=True))
        return Access(at.q, k, at.v, at.decay, rate=2 * torch.sigmoid(at.rate))


class ReplacingKeysCell(ReplacingCell):
    """Keys fade one by one."""

    head_gates = ("rate",)
    key_gates = ("decay",)


class ErasingCell(FadingCell):
    """What one key finds is taken from another."""

    key_gates = ("found", "taken", "decay")

    def access(self, wx):
        at = self.parts(wx)
        short = [part / (1 + part.norm(dim=-1, keepdim=True)) for part in (at.found, at.taken)]
        return Access(at.q, at.k, at.v, at.decay, erase_q=short[0], erase_k=short[1])


class ErasingHeadsCell(ErasingCell):
    """All keys of a head fade alike."""

    def access(self, wx):
        at = super().access(wx)
        return at._replace(log_decay=at.log_decay[..., :1])


class ReadFirstCell(FadingCell):
    """The memory is read before it fades and is written to."""

    reads_first = True


class ReplacingReadFirstCell(ReplacingCell):
    """What a key finds is replaced once the memory was read."""

    reads_first = True


class ErasingReadFirstCell(ErasingCell):
    """What one key finds is taken from another once the memory was read."""

    reads_first = True


def twice(at):
    """Writes as they are, and once more with keys, values and what finds them the other way."""
    written = {n: part for n, part in at._asdict().items() if n not in ("q", "log_decay")}
    pairs = {n: (part, part.flip(-1)) for n, part in written.items() if part is not None}
    return at._replace(**{n: torch.stack(pair, -3) for n, pair in pairs.items()})


class TwiceReplacingCell(ReplacingKeysCell):
    """Each step writes twice."""

    writes = 2

    def access(self, wx):
        return twice(super().access(wx))


class TwiceErasingCell(ErasingReadFirstCell):
    """Each step writes twice once the memory was read."""

    writes = 2

    def access(self, wx):
        return twice(super().access(wx))


FADING = [
    (FadingCell, 0, 4),
    (FadingHeadsCell, 0, 2),
    (ReplacingCell, 2, 2),
    (ReplacingKeysCell, 2, 4),
    (ErasingCell, 8, 4),
    (ErasingHeadsCell, 8, 4),
    (ReadFirstCell, 0, 4),
    (ReplacingReadFirstCell, 2, 2),
    (ErasingReadFirstCell, 8, 4),
    (TwiceReplacingCell, 2, 4),
    (TwiceErasingCell, 8, 4),
]


@pytest.mark.parametrize(("cell_cls", "others", "rates"), FADING)
@pytest.mark.parametrize("least", [0.0, 1e-9, 1e-3, 1e2, float("inf")])
def test_decays_from_nearly_nothing_to_nearly_all_stay_exact(cell_cls, others, rates, least):
    cell = cell_cls(14 + others + rates, 6, num_heads=2, key_size=2, dtype=torch.float64)
    fades = -torch.rand(1, 300, rates, dtype=torch.float64)
    fades[:, ::7] = -least
    parts = torch.randn(1, 300, 14 + others, dtype=torch.float64)
    x = torch.cat([parts, fades], -1).requires_grad_()

    found, expected = (unroll(cell, x, backend=b) for b in ("scan", "reference"))
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y, _ in (found, expected)]

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_two_thousand_steps_stay_exact(cell_cls):
    cell, x = make(cell_cls), 3 * torch.randn(1, 2000, I, dtype=torch.float64)

    with torch.no_grad():
        found, expected = (unroll(cell, x, backend=b) for b in ("scan", "reference"))

    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_two_thousand_steps_in_float32_are_as_near_to_float64_as_the_plain_loop(cell_cls):
    cell, x = make(cell_cls, torch.float32), torch.randn(1, 2000, I)
    double = make(cell_cls)
    double.load_state_dict(cell.state_dict())

    with torch.no_grad():
        exact = unroll(double, x.double(), backend="reference")[0]
        far = [(unroll(cell, x, backend=b)[0] - exact).abs().max() for b in ("scan", "reference")]

    assert far[0] < 2 * far[1] + 1e-6 * exact.abs().max()


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_a_learned_start_and_its_gradient_are_those_of_the_plain_loop(cell_cls, reverse):
    cell = LearnedState(make(cell_cls))
    perturb(cell)
    x, lengths = torch.randn(B, T, I, dtype=torch.float64), torch.tensor([T, 0, 7])
    resets = torch.rand(B, T) < 0.4

    def results(backend):
        y, state = unroll(cell, x, None, lengths, resets, reverse=reverse, backend=backend)
        total = y.square().sum() + sum(part.sin().sum() for part in state)
        wanted = tuple(cell.parameters())
        return y, state, torch.autograd.grad(total, wanted, materialize_grads=True)

    torch.testing.assert_close(results("scan"), results("reference"))


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_gradients_can_be_differentiated_again(cell_cls):
    cell = make(cell_cls)
    x = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    lengths, resets = torch.tensor([T, 0, 7]), torch.rand(B, T) < 0.3
    given = cell, x, lengths, resets
    seconds = [second_derivatives(*given, backend) for backend in ("scan", "reference")]

    torch.testing.assert_close(*seconds)


@pytest.mark.usefixtures("_short_chunks")
def test_batches_of_gradients_go_through():
    cell, x = make(GatedDeltaNetCell), torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    y, _ = unroll(cell, x)
    grads = torch.randn(4, *y.shape, dtype=torch.float64)

    (found,) = torch.autograd.grad(y, x, grads, retain_graph=True, is_grads_batched=True)

    each = [torch.autograd.grad(y, x, grad, retain_graph=True)[0] for grad in grads]
    torch.testing.assert_close(found, torch.stack(each))


@pytest.mark.usefixtures("_short_chunks")
def test_a_final_memory_and_the_gradient_of_the_first_hold_no_others():
    cell = make(GatedDeltaNetCell)
    state = [torch.zeros(B, n, dtype=torch.float64, requires_grad=True) for n in cell.state_sizes]
    x = torch.randn(B, T, I, dtype=torch.float64)

    y, (_, memory) = unroll(cell, x, tuple(state))
    (grad,) = torch.autograd.grad(y.sum(), state[1])
    with torch.no_grad():
        _, (_, other) = unroll(cell, x, tuple(state))

    for part in (memory, grad, other):
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_function_transforms_go_through(cell_cls):
    cell = make(cell_cls)
    x, along = torch.randn(2, 4, B, T, I, dtype=torch.float64)

    def outputs(x, backend="scan"):
        return unroll(cell, x, backend=backend)[0]

    torch.testing.assert_close(vmap(outputs)(x), torch.stack([*map(outputs, x)]))
    found, expected = (
        jvp(partial(outputs, backend=b), (x[0],), (along[0],)) for b in ("scan", "reference")
    )
    torch.testing.assert_close(found, expected)


class ObservedCell(RetentionCell):
    """Retention whose class remembers in which dtype it is computed."""

    def access(self, wx):
        ObservedCell.seen = wx.dtype
        return super().access(wx)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_adds_up_in_single_precision(dtype):
    cell, x = make(ObservedCell, dtype), torch.randn(2, 300, I).to(dtype)
    wide = RetentionCell(I, 6, num_heads=2, key_size=4)
    wide.load_state_dict(cell.state_dict())

    y, state = unroll(cell, x, backend="scan")
    expected, _ = unroll(wide, x.float())

    assert cell.seen == torch.float32
    assert {y.dtype, *(part.dtype for part in state)} == {dtype}
    assert (y - expected).abs().mean() < 0.05 * expected.abs().mean()


class TurningCell(RetentionCell):
    """Retention whose steps multiply queries, and what they find, by matrices, old and new."""

    def add_parameters(self, parameter):
        super().add_parameters(parameter)
        self.weight_turn = parameter(self.key_size, self.key_size)
        self.leave = nn.Linear(self.hidden_size, self.hidden_size).to(self.weight_turn.dtype)

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.xavier_uniform_(self.learned("weight_turn"))

    def access(self, wx):
        at = super().access(wx)
        return at._replace(q=F.linear(at.q, self.weight_turn))

    def readout(self, found, wx):
        return self.leave(super().readout(found, wx)) @ self.weight_ih @ self.weight_ih.T


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("memory", ["full", "lean"])
@pytest.mark.parametrize("around", [lambda f: f, partial(torch.compile, backend="aot_eager")])
def test_in_half_precision_steps_may_multiply_by_parameters(around, memory, mixed):
    cell, x = make(TurningCell, torch.bfloat16), torch.randn(2, 70, I).bfloat16()
    wide = make(TurningCell)
    wide.load_state_dict(cell.state_dict())
    layer = around(Recurrent(cell, backend="scan", memory=memory))

    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        y, _ = layer(x)
    expected, _ = unroll(wide, x.double(), backend="reference")

    assert (y - expected).abs().mean() < 0.02 * expected.abs().mean()
    found = torch.autograd.grad(y.sum(), [*cell.parameters()])
    wanted = torch.autograd.grad(expected.sum(), [*wide.parameters()])
    for grad, exact in zip(found, wanted, strict=True):
        assert grad.dtype == torch.bfloat16
        assert (grad - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_under_autocast_only_the_products_before_are_rounded(cell_cls):
    cell, x = make(cell_cls, torch.float32), torch.randn(2, 70, I)

    with torch.autocast("cpu", torch.bfloat16):
        y, state = unroll(cell, x, backend="scan")
    expected, final = unroll(cell, x)

    assert (y.dtype, state[1].dtype) == (torch.bfloat16, torch.float32)
    assert (y - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert (state[1] - final[1]).abs().mean() < 0.05 * final[1].abs().mean()


def kept(cell, x, memory="full"):
    """How many numbers a forward pass keeps for the backward pass."""
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = unroll(cell, x, backend="scan", memory=memory)
    assert result[0].requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("cell_cls", [MLSTMCell, RetentionCell, DeltaNetCell, GatedDeltaNetCell])
def test_no_matrix_is_kept_for_each_step(cell_cls):
    cell = cell_cls(3, 64)

    assert kept(cell, torch.randn(2, 128, 3)) < 2 * 128 * 64 * 64 / 2


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_lean_memory_gives_the_same_and_keeps_little(cell_cls):
    cell, x = make(cell_cls), torch.randn(B, 70, I, dtype=torch.float64, requires_grad=True)
    wanted = (x, *cell.parameters())

    def gradients(memory):
        y, state = unroll(cell, x, memory=memory)
        total = y.square().sum() + state[1].sum()
        return torch.autograd.grad(total, wanted, materialize_grads=True)

    assert str(explain(cell, x, memory="lean")).startswith("scan: chosen")
    torch.testing.assert_close(gradients("lean"), gradients("full"))
    assert kept(cell, x, "lean") < kept(cell, x) / 10


@pytest.mark.parametrize(("steps", "times"), [(1, 0), (64, 0), (65, 1)])
def test_a_backward_pass_of_its_own_is_for_many_steps_alone(steps, times, monkeypatch):
    calls = []

    def carried(*given):
        calls.append(given)
        return carry.carried(*given)

    monkeypatch.setattr(remember, "carried", carried)
    unroll(RetentionCell(I, 4), torch.randn(2, steps, I))

    assert len(calls) == times


@pytest.mark.parametrize("steps", [1, 33, 70])
def test_without_gradients_it_finds_the_same(steps):
    cell, x = make(GatedDeltaNetCell), torch.randn(2, steps, I, dtype=torch.float64)

    with torch.no_grad():
        found = unroll(cell, x)

    assert not any(part.requires_grad for part in (found[0], *found[1]))
    torch.testing.assert_close(found, unroll(cell, x))


def test_it_is_chosen_and_explained():
    found = explain(MLSTMCell(3, 128, num_heads=4), torch.randn(2, 20, 3))

    assert (found.chosen, found.slower) == ("scan", ("reference",))
    assert "MLSTMCell keeps matrices, too many numbers for a loop" in found.refusals["c"]


@pytest.mark.parametrize("around", [LearnedState, partial(InputDropout, p=0.5)])
def test_options_that_leave_the_step_alone_go_through(around):
    cell = around(make(MLSTMCell))
    x = torch.randn(2, 40, I, dtype=torch.float64, requires_grad=True)

    results = []
    for backend, memory in (("scan", "full"), ("scan", "lean"), ("reference", "full")):
        torch.manual_seed(0)
        y, _ = unroll(cell, x, backend=backend, memory=memory)
        wanted = (x, *cell.parameters())
        results.append((y, torch.autograd.grad(y.sum(), wanted, materialize_grads=True)))

    assert explain(cell, x).chosen == "scan"
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


@pytest.mark.parametrize("around", [AllStates, partial(Zoneout, p=0.5)])
def test_options_that_change_the_step_run_in_the_plain_loop(around):
    cell = around(MLSTMCell(3, 4))

    assert explain(cell, torch.randn(2, 5, 3)).chosen == "reference"
    with pytest.raises(BackendError, match="'scan' refuses: the step cannot be traced: MLSTMCell "):
        unroll(cell, torch.randn(2, 5, 3), backend="scan")


class HalvedCell(RetentionCell):
    """Retention that halves its output in a step of its own."""

    def step(self, wx, state):
        h, *memory = super().step(wx, state)
        return h / 2, *memory


def test_a_step_that_is_overridden_runs():
    cell = HalvedCell(3, 4)
    whole = RetentionCell(3, 4)
    whole.load_state_dict(cell.state_dict())
    x = torch.randn(2, 5, 3)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(whole, x)[0] / 2)


class LastWriteFirstCell(DeltaProductCell):
    def each_write(self, at):
        return super().each_write(at)[::-1]


def test_writes_that_are_overridden_run():
    cell, x = LastWriteFirstCell(3, 4), torch.randn(2, 5, 3)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])


def test_a_step_set_on_one_cell_runs():
    cell, x = RetentionCell(3, 4), torch.randn(2, 5, 3)
    whole = unroll(cell, x)[0]
    step = cell.step
    cell.step = lambda wx, state: tuple(part / 2 for part in step(wx, state))

    assert not torch.allclose(unroll(cell, x)[0], whole)


@pytest.mark.parametrize(("units", "backend"), [(4, "c"), (32, "reference")])
def test_streams_of_small_memories_run_in_c(units, backend):
    layer, x = Recurrent(RetentionCell(3, units)), torch.randn(2, 4, 3)

    stream = Stream(layer, batch_size=2)
    outputs = [stream(x_t).clone() for x_t in x.unbind(1)]

    torch.testing.assert_close(torch.stack(outputs, 1), layer(x)[0])
    assert stream.backend == backend
    assert backend == "c" or "1056 numbers of its state would be unrolled" in stream.reason


@pytest.mark.parametrize("reverse", [False, True])
def test_gates_that_would_overflow_in_padding_spoil_nothing(reverse):
    cell = MLSTMCell(3, 4)
    with torch.no_grad():
        cell.weight_heads[0] = 100.0
    x = torch.ones(2, 6, 3, requires_grad=True)
    state = tuple(torch.zeros(2, size) for size in cell.state_sizes[:3])
    m = torch.full((2, 1), -300.0, requires_grad=True)

    results = []
    for backend in ("scan", "reference"):
        lengths = torch.tensor([6, 0])
        y, final = unroll(cell, x, (*state, m), lengths, reverse=reverse, backend=backend)
        results.append((y, final, torch.autograd.grad(y.sum() + final[3].sum(), (x, m))))

    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)  # of logarithms of 300


def test_lean_memory_under_autocast_gives_the_same_and_keeps_little():
    cell, x = make(MLSTMCell, torch.float32), torch.randn(B, 70, I, requires_grad=True)

    def gradients(memory):
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = unroll(cell, x, memory=memory)
        return y, *torch.autograd.grad(y.square().sum(), (x, *cell.parameters()))

    torch.testing.assert_close(gradients("lean"), gradients("full"))
    with torch.autocast("cpu", torch.bfloat16):
        assert kept(cell, x, "lean") < kept(cell, x) / 10


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("cell_cls", [MLSTMCell, DeltaNetCell])
def test_torch_jit_trace_writes_down_the_plain_loop(cell_cls):
    layer, x, other = Recurrent(cell_cls(I, 4)), torch.randn(2, 6, I), torch.randn(2, 6, I)

    traced = torch.jit.trace(layer, (x,))

    torch.testing.assert_close(traced(other), layer(other))


class ForgetfulCell(MLSTMCell):
    """A normalised memory without the weight of what is written."""

    def access(self, wx):
        return super().access(wx)._replace(log_write=None)


@pytest.mark.parametrize("backend", ["scan", "reference"])
def test_a_normalised_memory_needs_the_weight_of_what_is_written(backend):
    with pytest.raises(ConfigError, match="ForgetfulCell: access gives no log_write, expected one"):
        unroll(ForgetfulCell(3, 4), torch.randn(2, 5, 3), backend=backend)


@pytest.mark.parametrize(
    ("changed", "told"),
    [("weight_qk", "MLSTMCell: its input, state or parameters were changed"), ("x", "in ?place")],
)
def test_what_changes_before_a_lean_backward_pass_is_told(changed, told):
    cell, x = make(MLSTMCell), torch.randn(B, 5, I, dtype=torch.float64, requires_grad=True)
    y, _ = unroll(cell, x, backend="scan", memory="lean")

    with torch.no_grad():
        (x if changed == "x" else cell.get_parameter(changed)).mul_(2)

    with pytest.raises(RuntimeError, match=told):
        y.sum().backward()


def test_a_lean_backward_pass_runs_in_the_mode_of_the_forward_pass():
    cell = InputDropout(make(RetentionCell), p=0.5)
    x = torch.randn(B, 5, I, dtype=torch.float64, requires_grad=True)

    gradients = []
    for memory in ("full", "lean"):
        torch.manual_seed(0)
        y, _ = unroll(cell.train(), x, backend="scan", memory=memory)
        cell.eval()
        gradients.append(torch.autograd.grad(y.sum(), x))

    torch.testing.assert_close(*gradients)


def test_a_lean_backward_pass_has_the_parameters_of_the_forward_pass():
    cell, x = make(RetentionCell), torch.randn(B, 5, I, dtype=torch.float64)
    others = {name: 2 * p.detach() for name, p in cell.named_parameters()}

    def gradients(memory):
        given = {f"cell.{name}": p.clone().requires_grad_() for name, p in others.items()}
        layer = Recurrent(cell, backend="scan", memory=memory)
        y, _ = functional_call(layer, given, (x,))  # and then the cell has its own again
        return torch.autograd.grad(y.square().sum(), list(given.values()))

    torch.testing.assert_close(gradients("lean"), gradients("full"))


class WeightsGivenCell(FadingHeadsCell):
    """A normalised memory that fades and writes by logarithms which the input holds."""

    head_gates = ("decay", "weight")
    states = ("h", "S", "n", "m")
    normalised = True

    def access(self, wx):
        at = self.parts(wx)
        return Access(at.q, at.k, at.v, at.decay, at.weight)


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 4])])
def test_a_normalised_memory_may_write_nothing(lengths):
    cell = WeightsGivenCell(8, 2, key_size=2, dtype=torch.float64)
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    x[..., 6], x[:, 3, 6], x[:, 2:5, 7] = -0.1, -torch.inf, -torch.inf
    state = tuple(torch.ones(2, size, dtype=torch.float64) for size in cell.state_sizes[:3])
    m = torch.full((2, 1), -5.0, dtype=torch.float64)
    x.requires_grad_()

    results = []
    for backend in ("scan", "reference"):
        y, final = unroll(cell, x, (*state, m), lengths, backend=backend)
        results.append((y, final, torch.autograd.grad(y.sum(), x)))

    assert results[1][0].isfinite().all()
    torch.testing.assert_close(*results)


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_a_reset_before_the_first_step_drops_an_infinite_state(cell_cls):
    cell, x = make(cell_cls), torch.randn(1, 9, I, dtype=torch.float64, requires_grad=True)
    state = [torch.full((1, n), torch.inf, dtype=torch.float64) for n in cell.state_sizes]
    resets = (torch.arange(9) == 0)[None]

    results = []
    for backend in ("scan", "reference"):
        y, final = unroll(cell, x, tuple(state), resets=resets, backend=backend)
        results.append((y, final, torch.autograd.grad(y.sum(), x)))

    assert results[0][0].isfinite().all()
    torch.testing.assert_close(*results)


class FlatDecayCell(RetentionCell):
    """Its decay has no last dimension."""

    def access(self, wx):
        at = super().access(wx)
        return at._replace(log_decay=at.log_decay.squeeze(-1))


class FadingKeysCell(MLSTMCell):
    """A normalised memory whose keys fade one by one."""

    def access(self, wx):
        at = super().access(wx)
        return at._replace(log_decay=at.log_decay.expand_as(at.k))


class HalfErasingCell(DeltaNetCell):
    """It takes something away, and does not say what finds it."""

    def access(self, wx):
        at = super().access(wx)
        return at._replace(rate=None, erase_k=at.k)


class ReplacingAndErasingCell(DeltaNetCell):
    """It replaces what a key finds, and takes it away beside."""

    def access(self, wx):
        at = super().access(wx)
        return at._replace(erase_q=at.k, erase_k=at.k)


class OneWriteCell(DeltaNetCell):
    """It says that a step writes twice, and gives one write."""

    writes = 2


@pytest.mark.parametrize("backend", ["scan", "reference"])
def test_what_access_gives_is_checked(backend):
    x = torch.randn(2, 5, 3)

    with pytest.raises(
        ShapeError, match=r"access gives k of .*, expected \(..., writes, N, K\) = "
    ):
        unroll(OneWriteCell(3, 4), x, backend=backend)

    with pytest.raises(ShapeError, match=r"FlatDecayCell: access gives log_decay of shape \(2, "):
        unroll(FlatDecayCell(3, 4), x, backend=backend)
    with pytest.raises(ConfigError, match="FadingKeysCell: access gives a log_decay for each of 4"):
        unroll(FadingKeysCell(3, 4), x, backend=backend)
    with pytest.raises(ConfigError, match="HalfErasingCell: access gives erase_k, expected rate a"):
        unroll(HalfErasingCell(3, 4), x, backend=backend)
    with pytest.raises(ConfigError, match="access gives rate and erase_q and erase_k, expected ra"):
        unroll(ReplacingAndErasingCell(3, 4), x, backend=backend)


def test_a_normalised_memory_cannot_be_read_first():
    with pytest.raises(ConfigError, match="EarlyCell: normalised and reads_first are True, expec"):

        class EarlyCell(MLSTMCell):
            reads_first = True


def test_a_normalised_memory_is_written_to_once_a_step():
    class BusyCell(MLSTMCell):
        writes = 2

    with pytest.raises(ConfigError, match="BusyCell: writes is 2, expected None"):
        BusyCell(3, 4)
