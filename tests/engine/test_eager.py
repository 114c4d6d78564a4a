"""The loop in torch's own operations: what the plain loop computes, in fewer of them."""

from dataclasses import replace
from functools import partial, reduce

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import unroll
from seqnets.cells import GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.engine import eager, reference, runs
from seqnets.engine.dispatch import BACKENDS
from seqnets.engine.layout import Layout
from seqnets.engine.loops import Inputs, Order
from seqnets.engine.plans import program_of
from seqnets.engine.request import make_request
from seqnets.errors import BackendError
from seqnets.testing import check_backend
from seqnets.testing.laws import LAWS, example, obey, perturb
from tests.cells.final import TRACED_CELLS, sized
from tests.engine import user_cells

B, T, I, H = 5, 7, 3, 4
LENGTHS = torch.tensor([4, 0, 7, 1, 7])
CELLS = {
    **{cls.__name__: partial(sized, cls) for cls in (*TRACED_CELLS, *user_cells.USER_CELLS)},
    "ReLU": lambda *sizes: RNNCell(*sizes, nonlinearity="relu"),
    "projected": lambda *sizes: LSTMCell(*sizes, proj_size=2),
    "without bias": lambda *sizes: GRUCell(*sizes, bias=False),
    "projected without bias": lambda *sizes: LSTMCell(*sizes, proj_size=3, bias=False),
}


@pytest.fixture(autouse=True)
def _known_to_unroll(monkeypatch):
    monkeypatch.setitem(BACKENDS, "eager", eager)


@pytest.mark.parametrize("kind", CELLS)
def test_it_agrees_with_the_reference_and_refuses_nothing(kind):
    cell = CELLS[kind](3, 5)
    assert check_backend(cell, "eager", steps=(1, 5), dtypes=(torch.float64,)) == {}


@pytest.mark.parametrize("kind", ["GRUCell", "projected", "NormedCell"])
def test_a_backward_pass_in_many_chunks_agrees(kind, monkeypatch):
    # 5 rows of 5 numbers: 5 steps in double precision
    monkeypatch.setattr(eager.loops, "_CHUNK", 1000)

    assert check_backend(CELLS[kind](3, 5), "eager", steps=(1, 4, 5, 6, 19)) == {}


def everything(cell, x, state, lengths, resets, run):
    x = x.detach().requires_grad_()
    state = tuple(part.detach().requires_grad_() for part in state)
    y, final = run(make_request(cell, x, state, lengths, resets, False))
    weights = [torch.arange(p.numel()).sin().view_as(p).to(p.dtype) for p in (y, *final)]
    loss = sum((p * w).sum() for p, w in zip((y, *final), weights, strict=True))
    wanted = (x, *state, *cell.parameters())
    return [y, *final, *torch.autograd.grad(loss, wanted, materialize_grads=True)]


def make(kind, dtype=torch.float64):
    cell = CELLS[kind](I, H).to(dtype)
    perturb(cell)
    x = torch.randn(B, T, cell.input_size, dtype=dtype)
    state = tuple(torch.randn(B, size, dtype=dtype) for size in cell.state_sizes)
    return cell, x, state, torch.rand(B, T) < 0.3


@pytest.mark.parametrize("kind", CELLS)
def test_no_number_is_read_before_it_is_written(kind, monkeypatch):
    cell, x, state, resets = make(kind)
    expected = everything(cell, x, state, LENGTHS, resets, reference.run)

    def poisoned(make_tensor):
        def filled(*args, **kwargs):
            tensor = make_tensor(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.dtype.is_floating_point else tensor

        return filled

    for owner, name in [(torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))

    torch.testing.assert_close(everything(cell, x, state, LENGTHS, resets, eager.run), expected)


@pytest.mark.parametrize(
    "kind",
    [
        "GRUCell",
        "projected",
        "OriginalGRUCell",
        "NormedCell",
        "LeakyCell",
        "RememberingCell",
        "AveragingCell",
    ],
)
@pytest.mark.parametrize("time_major", [False, True])
def test_what_is_not_kept_is_computed_again(kind, time_major):
    cell, x, state, resets = make(kind)
    if time_major:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)

    def lean(request):
        return eager.run(replace(request, memory="lean"))

    found = everything(cell, x, state, LENGTHS, resets, lean)

    torch.testing.assert_close(found, everything(cell, x, state, LENGTHS, resets, reference.run))


def test_chunks_of_lean_memory_do_not_each_make_a_gradient_as_large_as_the_input():
    cell, x = GRUCell(I, H), torch.randn(2, 3 * 64, I, requires_grad=True)
    total = unroll(cell, x, backend="eager", memory="lean")[0].sum()
    with torch.profiler.profile(acc_events=True) as profile:
        total.backward()

    assert not [event for event in profile.events() if event.name == "aten::slice_backward"]


@pytest.mark.parametrize("kind", ["GRUCell", "projected", "NormedCell"])
def test_inputs_may_have_time_first_in_memory(kind):
    cell, x, state, resets = make(kind)
    time_major = x.transpose(0, 1).contiguous().transpose(0, 1)

    found = everything(cell, time_major, state, LENGTHS, resets, eager.run)

    torch.testing.assert_close(found, everything(cell, x, state, LENGTHS, resets, reference.run))
    assert eager.run(make_request(cell, x, state, None, None, False))[0].is_contiguous()


@pytest.mark.parametrize("kind", ["GRUCell", "PeepholeLSTMCell", "AttentiveCell"])
def test_its_gradient_can_be_differentiated_again(kind):
    cell, x, state, _ = make(kind)
    x.requires_grad_()

    seconds = []
    for backend in ("eager", "reference"):
        y, _ = unroll(cell, x, state, LENGTHS, backend=backend)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), (x, *cell.parameters())))

    torch.testing.assert_close(*seconds)


def test_what_is_made_of_a_parameter_is_counted_once_where_gradients_are_differentiated_again():
    cell = GRUCell(I, H).double()
    x = torch.randn(B, T, I, dtype=torch.float64)
    start = cell.bias_ih[:H].expand(B, -1)
    found = []

    for backend in ("eager", "reference"):
        y, _ = unroll(cell, x, (start,), backend=backend)
        found += torch.autograd.grad(y.square().sum(), cell.bias_ih, create_graph=True)

    torch.testing.assert_close(*found)


def test_a_state_that_no_gradient_reaches_may_be_in_a_loss_that_is_differentiated_again():
    class Counting(user_cells.BareCell):
        states = ("h", "n")

        def make(self, I, H):
            self.u = self.weight(H, I)

        def step(self, x, state):
            return torch.tanh(F.linear(x, self.u) + state[0]), state[1] + 1

    cell, x = Counting(I, H), torch.randn(B, T, I, requires_grad=True)
    found = []

    for backend in ("eager", "reference"):
        y, (_, n) = unroll(cell, x, backend=backend)
        found += torch.autograd.grad(y.square().sum() + n.sum(), x, create_graph=True)

    torch.testing.assert_close(*found)


class Layer(nn.Module):
    """A cell by this backend wherever that does not refuse."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, state=None, lengths=None, resets=None):
        request = make_request(self.cell, x, state, lengths, resets, False)
        takes = eager.refusal(request) is None
        return unroll(
            self.cell, x, state, lengths, resets, backend="eager" if takes else "reference"
        )

    def step(self, x, state):
        return self.cell(x, state)


@pytest.mark.parametrize("kind", ["PeepholeLSTMCell", "projected", "AttentiveCell"])
def test_the_laws_of_recurrence_hold(kind):
    layer = Layer(CELLS[kind](I, H)).double()
    perturb(layer)
    before = runs["eager"]

    obey(LAWS, layer, example(layer, I), kind)

    assert runs["eager"] > before


@pytest.mark.parametrize("wanted", ["x", "state", "weight_ih", "weight_hh", "bias_hh", "p_o"])
def test_only_what_needs_a_gradient_gets_one(wanted):
    cell, x, state, _ = make("PeepholeLSTMCell")
    tensors = {"x": x, "state": state[1], **dict(cell.named_parameters())}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name == wanted)

    gradients = []
    for backend in ("eager", "reference"):
        y, (_, c) = unroll(cell, x, state, LENGTHS, backend=backend)
        gradients.append(torch.autograd.grad(y.sum() + c.square().sum(), tensors[wanted]))
    unroll(cell, x, state, backend="eager")[0].sum().backward()

    torch.testing.assert_close(*gradients)
    assert [name for name, tensor in tensors.items() if tensor.grad is not None] == [wanted]


@pytest.mark.parametrize("used", [0, 1, 2])
def test_a_loss_may_use_only_one_of_the_results(used):
    cell, x, state, _ = make("LSTMCell")
    parameters = tuple(cell.parameters())

    gradients = []
    for backend in ("eager", "reference"):
        y, final = unroll(cell, x, state, LENGTHS, backend=backend)
        loss = (y, *final)[used].square().sum()
        gradients.append(torch.autograd.grad(loss, parameters))

    torch.testing.assert_close(*gradients)


def test_backward_twice_through_one_graph_gives_the_same_gradient_twice():
    cell, x, _, _ = make("GRUCell")
    y, _ = unroll(cell, x, backend="eager")

    first = torch.autograd.grad(y.sum(), tuple(cell.parameters()), retain_graph=True)
    second = torch.autograd.grad(y.sum(), tuple(cell.parameters()))

    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("backend", ["eager", "c"])
@pytest.mark.parametrize("steps", [T, 5000])
def test_outputs_may_be_changed_in_place_and_the_gradient_stays_right(steps, backend, time_first):
    cell, _, state, _ = make("GRUCell")
    x = torch.randn(B, steps, I, dtype=state[0].dtype)
    if time_first:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)

    gradients = []
    for changes in (True, False):
        y, _ = unroll(cell, x, state, backend=backend)
        y = y.mul_(2) if changes else y * 2
        gradients.append(torch.autograd.grad(y.sum(), tuple(cell.parameters())))

    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", CELLS)
def test_without_gradients_it_computes_the_same(kind):
    cell, x, state, resets = make(kind)

    with torch.no_grad():
        found = unroll(cell, x, state, LENGTHS, resets, backend="eager")

    expected = unroll(cell, x, state, LENGTHS, resets, backend="reference")
    torch.testing.assert_close(found, expected)
    assert not found[0].requires_grad


def test_what_is_kept_of_padding_is_zero():
    cell, x, state, _ = make("projected")
    cell.requires_grad_(False)
    order = Order(Layout(B, T), LENGTHS)
    wx = cell.project(x).detach().flatten(0, 1)
    past = (torch.arange(T) >= LENGTHS[:, None]).flatten()

    inputs = Inputs(wx, state, (), dict(cell.named_parameters()))
    _, _, kept = eager.LOOPS.forward(program_of(cell), inputs, order, save=True)

    for tensor in (*kept.befores.values(), *kept.values.values()):
        assert not tensor[past].any()
        assert tensor[~past].all()


def test_low_precision_runs_and_trains():
    cell, x, _, _ = make("GRUCell", torch.bfloat16)

    y, _ = unroll(cell, x, lengths=LENGTHS, backend="eager")
    y.sum().backward()

    expected = unroll(cell.double(), x.double(), lengths=LENGTHS, backend="reference")[0]
    torch.testing.assert_close(y.double(), expected, rtol=0.05, atol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


LONG = {
    "the state": lambda wx, uh, h: sum((0.01 * wx * n for n in range(350)), h + uh),
    "norms": lambda wx, uh, h: reduce(lambda y, n: y - y.mean(-1, True) / n, range(9, 99), wx + uh),
}


@pytest.mark.parametrize("update", LONG.values(), ids=LONG)
def test_hundreds_of_operations_that_depend_on_each_other_run(update):
    class Long(GatedCell):
        gates = ("n",)

        def update(self, wx, uh, state):
            return (update(wx.n, uh.n, *state),)

    assert check_backend(Long(I, H), "eager", steps=(2,), dtypes=(torch.float64,)) == {}


class SteppedCell(user_cells.BareCell):
    states = ("h", "m")

    def make(self, I, H):
        self.size, self.weight_hh = self.weight(H), self.weight(H, H)

    def step(self, x, state):
        h, m = state
        return torch.tanh(h + self.whole(x) + self.whole(m @ self.weight_hh)), self.whole(m)

    def whole(self, number):
        return torch.div(number, self.size, rounding_mode="floor")


def test_gradients_that_are_zero_wherever_a_parameter_is_not_are_of_each_row():
    assert check_backend(SteppedCell(2, 2), "eager", steps=(1, 3), dtypes=(torch.float64,)) == {}


class Untraced(GatedCell):
    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.cumprod(wx.h + uh.h, -1),)


REFUSALS = {
    "an untraceable step": (Untraced, {}, "cannot be traced: aten.cumprod"),
    "no rows": (GRUCell, {"x": torch.zeros(0, T, I)}, "no rows or no steps"),
    "no steps": (GRUCell, {"x": torch.zeros(B, 0, I)}, "no rows or no steps"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_it_says_what_it_refuses(case):
    cell_cls, options, reason = REFUSALS[case]

    with pytest.raises(BackendError, match=rf"'eager' refuses: .*{reason}"):
        unroll(cell_cls(I, H), **{"x": torch.randn(B, T, I), **options}, backend="eager")


def test_it_refuses_mixed_precision():
    cell, x, _, _ = make("GRUCell", torch.float32)

    with torch.autocast("cpu", torch.bfloat16), pytest.raises(BackendError, match="autocast"):
        unroll(cell, x, backend="eager")


def test_it_refuses_function_transforms():
    cell, x, _, _ = make("GRUCell")

    with pytest.raises(BackendError, match="vmap, forward-mode or functional"):
        torch.func.vmap(lambda row: unroll(cell, row[None], backend="eager")[0])(x)
