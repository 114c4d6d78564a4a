"""A step as a graph of arithmetic: the same numbers, or a reason why there is none."""

import re
import runpy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.torch_version import TorchVersion

from seqnets import unroll
from seqnets.cells import GatedCell, LSTMCell, RNNCell, bindable
from seqnets.engine.derivative import derive
from seqnets.engine.evaluate import Values, replay
from seqnets.engine.graph import Columns, Graph, Untraceable, walk
from seqnets.engine.pieces import cut, joined, pieces_of
from seqnets.engine.plans import plan_of
from seqnets.engine.schedule import make_program
from seqnets.engine.serialised import step_from_text, step_to_text
from seqnets.engine.tracing import composed, copying
from seqnets.engine.tracing.composed import INSTEAD
from seqnets.engine.tracing.trace import trace_step
from seqnets.testing import check_backend
from tests.cells.final import TRACED_CELLS, sized
from tests.engine import user_cells

B, I, H = 3, 4, 5
CELLS = {
    **{cls.__name__: partial(sized, cls) for cls in (*TRACED_CELLS, *user_cells.USER_CELLS)},
    "ReLU": lambda *sizes: RNNCell(*sizes, nonlinearity="relu"),
    "projected": lambda *sizes: LSTMCell(*sizes, proj_size=2),
    "without bias": lambda *sizes: LSTMCell(*sizes, bias=False),
}


def filled(x):
    y = torch.empty(len(x), H, dtype=x.dtype)
    y[:, :2], y[:, 2:] = x[:, 3:], x[:, :3]
    return y


def put_together(x):
    y = torch.zeros_like(x)
    y[:, :2] = x[:, 1:3]
    y[:, 2], y[:, 3:] = 0.5, x[:, :1]
    y[:, 1:3] += x[:, 3:]
    y[y > 1] = 1
    return y


def put_at(x, places, values):
    y = x.clone()
    y[:, places] = values
    return y


def rotated(x):
    y, wide = torch.empty(len(x), 2 * H, dtype=x.dtype), torch.cat([x, x.sin()], 1)
    even, odd = wide[:, ::2], wide[:, 1::2]
    y[:, ::2], y[:, 1::2] = even * x.cos() - odd * x, even * x + odd * x.cos()
    return y.view(-1, 2, H).sum(1)


FUNCTIONS = {
    "silu": F.silu,
    "softplus": F.softplus,
    "times a logarithm": lambda x: torch.xlogy(x, x.abs() + 0.5),
    "gelu": F.gelu,
    "elu": F.elu,
    "mish": F.mish,
    "leaky relu": lambda x: F.leaky_relu(x, 0.1),
    "hard sigmoid": F.hardsigmoid,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "powers": lambda x: x**2 + x**3 - (x * x + 1) ** -0.5,
    "a chosen branch": lambda x: torch.where(x > 0, torch.sin(x), x.abs()),
    "numbers to a power": lambda x: 2**x + torch.pow(0.3, x.sin()),
    "a filled mask": lambda x: x.masked_fill(x > 0.3, 0.5),
    "the larger": lambda x: torch.maximum(x, 0.5 * x.cos()),
    "number minus tensor": lambda x: 1 - x,
    "layer norm": lambda x: F.layer_norm(x, (H,)),
    "rms norm": lambda x: F.rms_norm(x, (H,)),
    "spread": lambda x: x / x.std(-1, keepdim=True),
    "in place on its own": lambda x: (x + 1).mul_(2).tanh_(),
    "softmax": lambda x: F.softmax(x, -1) * x,
    "log softmax": lambda x: F.log_softmax(x, 1),
    "softmin": lambda x: F.softmin(x, -1),
    "log of summed exponentials": lambda x: x - torch.logsumexp(x, -1, keepdim=True),
    "the largest unit": lambda x: x / x.abs().amax(-1, keepdim=True),
    "the largest unit of all parts": lambda x: (
        x * torch.stack([x, x.sin()], 1)[:, :, None].amax((1, -1))
    ),
    "the smallest unit": lambda x: x - x.amin(-1)[:, None],
    "two conditions": lambda x: torch.where((x > -0.5) & ~(x > 0.5) ^ (x < -1) | (x > 2), x, -x),
    "tangent": torch.tan,
    "powers of two": lambda x: torch.exp2(x) + torch.log2(x * x + 1) + torch.ceil(x),
    "angles": lambda x: torch.asin(x.sin()) * torch.acos(x.cos()) + torch.atan(x),
    "an angle all around": lambda x: torch.atan2(x, 0.3 - x.abs()),
    "hyperbolas": lambda x: torch.sinh(x) / torch.cosh(x) + torch.asinh(x) - torch.acosh(1 + x * x),
    "the inverse of tanh": lambda x: torch.atanh(0.9 * torch.tanh(x)),
    "what is left": lambda x: torch.fmod(x, 0.7) + torch.fmod(x.detach(), x.cos()),
    "whole quotients": lambda x: (
        x * x.div(0.3, rounding_mode="floor") - x * x.div(0.3, rounding_mode="trunc")
    ),
    "another's sign": lambda x: torch.copysign(x, x.sin()) + torch.copysign(x, -2.0),
    "a hypotenuse": lambda x: torch.hypot(x, x.cos()),
    "the larger number": lambda x: torch.fmax(x, x.sin()) + torch.fmin(x, x.cos()),
    "decimals": lambda x: x * torch.round(x, decimals=1),
    "what is finite": lambda x: torch.where(torch.isfinite(x) & torch.signbit(x), x, -x),
    "a chosen condition": lambda x: (
        x * torch.where(x > 0, x < 1, x > -1) + torch.where(torch.where(x < 0.5, True, x > 1), 1, x)
    ),
    "a condition and a flag": lambda x: torch.where((x > 0) & True | False, x, x.sin()),
    "a sum of more digits": lambda x: x * x.sum(-1, keepdim=True, dtype=torch.float64).to(x.dtype),
    "units that are counted": lambda x: x * (x > 0).sum(-1, keepdim=True, dtype=x.dtype),
    "numbers that are true": lambda x: torch.where(torch.logical_not(x.relu()), x, x.sin()),
    "chosen numbers": lambda x: x * torch.where(x > 0, 1, 0) + torch.where(x > 1, 0.5, -0.5),
    "conditions multiplied": lambda x: x * ((x > -1) * (x < 1)),
    "what is not zero": lambda x: x * x.round().bool() + (x > 0).bool() * F.relu(x).bool(),
    "places that are not the first": lambda x: x * x.argmax(-1, keepdim=True).bool(),
    "what is always true": lambda x: torch.where(torch.ones_like(x, dtype=torch.bool), x, -x),
    "spread and mean": lambda x: x * torch.std_mean(x, -1, keepdim=True)[0],
    "group norm": lambda x: F.group_norm(torch.cat([x, x.sin()], 1), 2).view(-1, 2, H).sum(1),
    "a gap filled with ones": lambda x: F.pad(x, (1, -1), value=1.0) * x,
    "means of neighbours": lambda x: F.avg_pool1d(x[:, None], 3, 1, 1)[:, 0],
    "batch norm in evaluation": lambda x: F.batch_norm(x, x.new_ones(H), x.new_full((H,), 2.0)),
    "parts put in place": put_together,
    "all parts put into new memory": filled,
    "every second unit put in place": rotated,
    "seen by another name": lambda x: (lambda y: y.view(-1, H).add_(1).sin() + y)(2 * x),
    "memory that is filled": lambda x: x + torch.empty_like(x).fill_(0.3),
    "the largest unit and its place": lambda x: x.max(-1, keepdim=True)[0] * x - x.min(-1, True)[0],
    "the larger of parts": lambda x: torch.cat([x, x.sin()], 1).view(-1, 2, H).max(1)[0],
    "straight through": lambda x: (
        torch.zeros_like(x).scatter_(-1, x.argmin(-1, True), 1.0) + x - x.detach()
    ),
    "a unit that another picks": lambda x: x * x.gather(-1, x.sin().max(-1, keepdim=True)[1]),
    "the three largest": lambda x: x * (x >= x.topk(3, -1)[0][:, -1:]),
    "the smallest": lambda x: x * x.topk(2, largest=False)[0].sum(-1, True),
    "the two largest": lambda x: x.topk(2)[0].sum(-1, True) + x,
    "parts put at places": lambda x: put_at(x, [-1, 0], x.mean(-1, True)) * put_at(x, [2, 3], 0.5),
    "parts side by side": lambda x: torch.cat([x[:, 2:].tanh(), x[:, :2].sin()], 1).mean(1, True),
    "units as a tensor": lambda x: torch.stack([x, x.sin()], 1).softmax(1).mean(1) * x,
    "candidates before rows": lambda x: torch.stack([x, x.sin()]).softmax(0).amax(0) * x,
    "one number spread": lambda x: x.mean(-1, keepdim=True).expand_as(x) * x,
    "numbers beside": lambda x: torch.cat([x.new_ones(len(x), 2), x], 1).mean(-1, True) * x,
    "a gap filled": lambda x: torch.where(torch.isnan(x), 0.5, x) * torch.nan_to_num(x),
    "lerp": lambda x: torch.lerp(x, x.sin(), 0.3),
    "a cast to its own type": lambda x: x.sin().to(x.dtype),
    "what is true as a number": lambda x: x * (x > 0).to(x.dtype) + (x < 0).sum(-1, keepdim=True),
    "what is true as a whole number": lambda x: x * (x > 0).long().sum(-1, keepdim=True),
    "parts put at places of all rows": lambda x: torch.scatter(
        x, 1, torch.tensor([[3, 0]]).expand(len(x), -1), x.mean(-1, True).expand(-1, 2)
    ),
    "numbers filled in": lambda x: x * torch.full_like(x, 0.3) + x.new_ones(H),
}
if torch.__version__ >= "2.13":  # before, torch asks for the places one by one
    FUNCTIONS["one of all"] = lambda x: x * F.one_hot(x.argmax(-1), H)


@pytest.mark.parametrize("build", ["{}.0", "{}.1+cpu", "{}.0.dev20260101+cu130", "{}.0a0+git1"])
@pytest.mark.parametrize(
    ("module", "constant", "first"),
    [(composed, "SHARED_AT_TIES", 14), (bindable, "_READS_ALL_ATTRIBUTES", 13)],
)
def test_builds_of_torch_before_a_release_count_as_it(build, module, constant, first, monkeypatch):
    def found(minor):
        monkeypatch.setattr(torch, "__version__", TorchVersion(build.format(f"2.{minor}")))
        return runpy.run_path(module.__file__)[constant]

    assert [found(9), found(first - 1), found(first), found(100)] == [False, False, True, True]


def with_function(function):
    class Custom(GatedCell):
        gates = ("h",)

        def update(self, wx, uh, state):
            return (function(wx.h + uh.h) + 0.5 * state[0],)

    return Custom


def input_cell(function):
    """The same, of an input that is not projected."""

    class Custom(GatedCell):
        gates, recurrent = ("a",), ()

        def project(self, x):
            return x

        def update(self, wx, uh, state):
            return (function(wx.a) + 0.5 * state[0],)

    return Custom


def example(cell_cls):
    cell = cell_cls(I, H).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter))
    wx = cell.project(torch.randn(B, cell.input_size, dtype=torch.float64))
    state = tuple(torch.randn(B, size, dtype=torch.float64) for size in cell.state_sizes)
    return cell, wx, state


def read(cell, preparation):
    """What a step reads by name, in double precision."""
    return {name: tensor.double() for name, tensor in preparation.of(cell.tensors()).items()}


@pytest.mark.parametrize("kind", CELLS)
def test_a_traced_step_replayed_is_the_step(kind):
    cell, wx, state = example(CELLS[kind])
    step, preparation = trace_step(cell)
    pieces = pieces_of(cell.state_sizes, step.state_sizes)

    found = joined(replay(step, wx, cut(state, pieces), read(cell, preparation)), pieces)

    torch.testing.assert_close(found, cell.step(wx, state), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_of_torch_is_traced_and_derived(kind):
    cell, wx, state = example(with_function(FUNCTIONS[kind]))
    step, preparation = trace_step(cell)

    found = replay(step, wx, state, read(cell, preparation))

    torch.testing.assert_close(found, cell.step(wx, state), rtol=0, atol=1e-12)
    assert make_program(step).backward


@pytest.mark.parametrize("kind", CELLS)
def test_a_step_written_down_and_read_again_is_equal(kind):
    cell, wx, state = example(CELLS[kind])
    step, preparation = trace_step(cell)
    tensors = read(cell, preparation)
    state = cut(state, pieces_of(cell.state_sizes, step.state_sizes))

    again = step_from_text(step_to_text(step))

    expected = replay(step, wx, state, tensors)
    torch.testing.assert_close(replay(again, wx, state, tensors), expected, rtol=0, atol=0)
    assert again.parameters == step.parameters
    assert _shape(make_program(again)) == _shape(make_program(step))


def _shape(program):
    stages = [
        (stage.width, len(stage.products), len(stage.stores), sorted(stage.state))
        for stage in (*program.forward, *program.backward)
    ]
    kept = program.saved_size, program.crossing, program.befores, program.shared
    return stages, kept, len(program.units)


def test_the_projection_of_the_input_can_belong_to_the_step():
    cell, _, state = example(LSTMCell)
    x = torch.randn(B, cell.input_size, dtype=torch.float64)
    step, _ = trace_step(cell, project=True)

    names = [product.weight.name for product in step.products]

    assert names == ["weight_ih", "weight_hh"]
    assert step.wx_size == I
    assert "x" in {p.value.what.source for p in step.products if p.value.op == "leaf"}
    assert len(cell.step(cell.project(x), state)) == len(step.state)


def test_a_derivative_is_that_of_torch():
    graph = Graph()
    x, y = (graph.leaf(Columns("state", key), 4) for key in (0, 1))
    z = graph.apply("mul", graph.apply("tanh", x), graph.apply("sigmoid", y))
    values = {x: torch.randn(2, 4).double(), y: torch.randn(2, 4).double()}
    grad = torch.randn(2, 4).double()

    nodes = derive(graph, {"z": z}, [x, y], 4)
    leaves = {**values, graph.leaf(Columns("grad", "z"), 4): grad}
    computed = Values(leaves.__getitem__, grad)
    found = [computed[node] for node in nodes]

    tensors = [value.requires_grad_() for value in values.values()]
    expected = torch.autograd.grad(tensors[0].tanh() * tensors[1].sigmoid(), tensors, grad)
    torch.testing.assert_close(found, list(expected))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.tanh(x.masked_fill(x > 0, 0.3) * x),
        lambda x: torch.tanh(torch.where(x > 0, x.new_full((), 0.7), x.new_full((), 0.3)) * x),
    ],
)
def test_constants_of_a_derivative_are_as_exact_as_in_double_precision(function):
    cell, _, state = example(with_function(function))
    x, gradients = torch.randn(B, 3, I, dtype=torch.float64), []
    for backend in ("eager", "reference"):
        y, _ = unroll(cell, x, state, backend=backend)
        gradients.append(torch.autograd.grad(y.sum(), cell.weight_hh)[0])

    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_number_is_rounded_as_the_tensor_that_is_full_of_it():
    cell, wx, state = example(with_function(lambda x: x * torch.full((H,), 0.3).float()))
    step, preparation = trace_step(cell)

    found = replay(step, wx, state, read(cell, preparation))

    torch.testing.assert_close(found, cell.step(wx, state), rtol=0, atol=1e-15)


def test_what_an_output_does_not_depend_on_has_no_derivative():
    graph = Graph()
    x, y = (graph.leaf(Columns("state", key), 4) for key in (0, 1))

    found = derive(graph, {"z": graph.apply("neg", x)}, [x, y], 4)

    assert found[0] is graph.apply("neg", graph.leaf(Columns("grad", "z"), 4))
    assert found[1] is None


@pytest.mark.parametrize(
    ("op", "args", "simplest"),
    [
        ("add", ("x", 0.0), "x"),
        ("add", (0.0, "x"), "x"),
        ("mul", (1.0, "x"), "x"),
        ("mul", ("x", 1.0), "x"),
        ("mul", ("x", 0.0), 0.0),
        ("mul", (0.0, "x"), 0.0),
        ("sub", ("x", 0.0), "x"),
        ("sub", (0.0, "-x"), "x"),
        ("neg", ("-x",), "x"),
        ("detach", ("detached",), "detached"),
        ("detach", ("x > 0",), "x > 0"),
        ("div", ("x", 1.0), "x"),
        ("add", (2.0, 3.0), 5.0),
        ("sub", (2.0, 3.0), -1.0),
        ("mul", (2.0, 3.0), 6.0),
        ("neg", (2.0,), -2.0),
    ],
)
def test_a_node_is_made_in_its_simplest_form(op, args, simplest):
    graph = Graph()
    x = graph.leaf(Columns("state", 0), 4)

    made = {
        "x": x,
        "-x": graph.apply("neg", x),
        "detached": graph.apply("detach", x),
        "x > 0": graph.apply("gt", x, graph.const(0)),
    }

    def node(what):
        return made[what] if isinstance(what, str) else graph.const(what)

    assert graph.apply(op, *map(node, args)) is node(simplest)


def test_equal_nodes_are_one_in_either_order():
    graph = Graph()
    x, y = (graph.leaf(Columns("state", key), 4) for key in (0, 1))

    assert graph.apply("add", x, y) is graph.apply("add", y, x)
    assert graph.apply("sub", x, y) is not graph.apply("sub", y, x)


ELSEWHERE, MATRIX, KERNEL = torch.randn(H), torch.randn(H, H), torch.randn(1, 1, 3)


def branch(h):
    return h if h.sum() > 0 else -h


def shared(h):
    first = h[:, :2]
    h[:, 1] = 0
    return h + first.mean(-1, True)


def changed_while_folded(h):
    rows = torch.stack([h, 2 * h]).flatten(0, 1)
    rows.mul_(3)
    return rows.view(2, -1, h.shape[-1]).sum(0)


UNTRACEABLE = {
    "a branch on numbers": (branch, "aten.sum over other than the units of a row"),
    "a branch on one number": (lambda h: h if bool(h[0, 0] > 0) else -h, "aten.select"),
    "a number read": (lambda h: h * float(h.new_zeros(()) + 1), "aten._local_scalar_dense"),
    "random numbers": (lambda h: h + torch.randn_like(h), "aten.randn_like"),
    "dropout": (lambda h: F.dropout(h, 0.5), "aten.(empty_like|bernoulli|native_dropout)"),
    "the sum of all numbers": (
        lambda h: h / h.norm(),
        r"aten.sum over other than the units .* instead: x.flatten\(1\).sum\(-1, keepdim=True\)",
    ),
    "a tensor from elsewhere": (lambda h: h * ELSEWHERE, r"a tensor from elsewhere, \(5,\)"),
    "a matrix from elsewhere": (lambda h: h @ MATRIX, "a product by a tensor from elsewhere"),
    "in place on what others see": (shared, "what aten.fill_ changes in place"),
    "in place with rows below rows": (
        changed_while_folded,
        "aten.mul_ in place of units and rows of the batch in one dimension; instead: the batch",
    ),
    "a check of numbers": (
        lambda h: h if h.isfinite().all() else h / 0,
        "aten.all; instead: those",
    ),
    "an unknown operation": (lambda h: torch.cumprod(h, -1), "aten.cumprod; instead: exp"),
    "sorted units": (lambda h: h.sort(-1)[0], "aten.sort; instead: max, or topk of a few"),
    "another function": (lambda h: torch.lgamma(h), "aten.lgamma$"),
    "the largest of all": (
        lambda h: h / h.max(),
        r"aten.max over other than the units .* instead: x.flatten\(1\).amax\(-1, keepdim=True\)",
    ),
    "units picked by a mask": (
        lambda h: h + h[:, torch.tensor([True, *[False] * (H - 1)])],
        r"aten.index; instead: the places of units as numbers",
    ),
    "units written by a mask": (
        lambda h: put_at(h, torch.tensor([True, *[False] * (H - 1)]), h[:, 1:2]),
        "units written by a mask, as many as are true; instead: torch.where",
    ),
    "where numbers belong": (
        lambda h: torch.searchsorted(torch.arange(3.0), h) * h,
        "aten.searchsorted; instead: a sum of comparisons",
    ),
    "many of the largest": (lambda h: h * h.topk(5)[0], "aten.topk of 5 units"),
    "some of the places": (
        lambda h: torch.stack([h, h], -1).scatter(1, h.argmax(1)[:, None, None], 0.3).sum(-1),
        "which leave some out; instead: an index for each",
    ),
    "places among equals": (
        lambda h: h.gather(-1, h.topk(2)[1]).sum(-1, True) * h,
        "instead: x >= topk",
    ),
    "arithmetic with places": (
        lambda h: h * h.gather(-1, h.argmax(-1, True) % H),
        "aten.remainder of torch.int64, .*; instead of take_along_dim: gather",
    ),
    "memory": (lambda h: h + torch.empty_like(h), "memory that nothing was written to"),
    "batch norm in training": (
        lambda h: F.batch_norm(h, None, None, training=True),
        "aten.native_batch_norm across rows, as in training; instead: a layer norm",
    ),
    "rows in another order": (lambda h: h.flip(0), "aten.flip across rows"),
    "rows of others": (lambda h: h - h.mean(0), "aten.mean across rows"),
    "frames": (
        lambda h: F.conv2d(h[:, None, None], h.new_ones(1, 1, 1, 1))[:, 0, 0],
        "aten.convolution",
    ),
    "a kernel from elsewhere": (lambda h: F.conv1d(h[:, None], KERNEL)[:, 0], "aten.convolution"),
    "a large outer product": (
        lambda h: (lambda wide: wide[..., None] * wide[..., None, :])(h.repeat(1, 9)).sum((1, 2)),
        "2025 numbers a row that are made of 45 others; instead: smaller matrices",
    ),
    "a cast to integers": (
        lambda h: h * (3 * h).long(),
        "a cast of torch.float32 to torch.int64; instead: .* == torch.arange",
    ),
    "a cast to complex numbers": (
        lambda h: h.to(torch.complex64).real,
        "a cast of torch.float32 to torch.complex64; instead: real",
    ),
    "a cast that rounds": (
        lambda h: h.bfloat16().to(h.dtype),
        "a cast of torch.float32 to torch.bfloat16",
    ),
    "arithmetic with what is true": (
        lambda h: h * ((h > 0) + (h < 1)),
        "aten.add of torch.bool, which is torch.bool",
    ),
    "numbers of another precision": (
        lambda h: (h * torch.ones(H, dtype=torch.float64)).to(h.dtype),
        "aten.mul of torch.float32 and torch.float64, which is torch.float64",
    ),
    "counts that may overflow": (
        lambda h: h * (h > 0).repeat(1, 64).sum(-1, keepdim=True, dtype=torch.uint8),
        "aten.sum of torch.bool, which is torch.uint8",
    ),
    "an error of its own": (lambda h: h / [], "unsupported operand|list"),
}


@pytest.mark.parametrize("case", UNTRACEABLE)
def test_a_step_that_cannot_be_traced_says_why(case):
    function, reason = UNTRACEABLE[case]

    with pytest.raises(Untraceable, match=reason):
        trace_step(with_function(function)(I, H))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            lambda cell, h: cell.norm.running_mean.mul_(0.9) * h,
            "norm.running_mean in place; instead: a part of the state",
        ),
        (lambda cell, h: cell.norm(h), "batch_norm across rows, as in training; instead: a layer"),
        (lambda cell, h: h.mul_(0.9), "its input or state in place, which others read; instead: a"),
    ],
    ids=["a buffer", "batch norm's counter", "the state"],
)
def test_a_step_that_changes_what_is_not_its_own_is_told_what(changed, told):
    class Changing(user_cells.BareCell):
        def make(self, I, H):
            self.norm = nn.BatchNorm1d(H)

        def step(self, x, state):
            return (changed(self, state[0]) + x,)

    with pytest.raises(Untraceable, match=told):
        trace_step(Changing(H, H))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_may_be_computed_in_single(dtype):
    cell = with_function(lambda h: F.silu(h) + h.float().tanh().to(h.dtype))(I, H)

    assert step_to_text(trace_step(cell.to(dtype))[0]) == step_to_text(trace_step(cell.float())[0])


@pytest.mark.parametrize("backend", ["c", "eager"])
def test_of_equal_units_the_first_have_the_gradient_of_the_largest(backend):
    cell = input_cell(lambda x: x.topk(2)[0].sum(-1, True) + 0 * x)(H, H)
    x = torch.zeros(1, 1, H, requires_grad=True)

    unroll(cell, x, backend=backend)[0].sum().backward()

    assert x.grad.flatten().tolist() == [H, H, 0, 0, 0]


DIGITS = {
    "a small number": (torch.sinh, 1e-8),
    "a power of two": (torch.exp2, 100.3),
    "two to a power": (lambda x: 2**x, -100.3),
    "a whole quotient": (lambda x: x.div(0.3, rounding_mode="floor"), 3.0),
}


@pytest.mark.parametrize("kind", DIGITS)
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_function_keeps_its_digits(kind, backend):
    function, value = DIGITS[kind]
    cell, x = input_cell(function)(H, H), torch.full((1, 1, H), value)

    y, _ = unroll(cell, x, backend=backend)

    torch.testing.assert_close(y, function(x), rtol=5e-7, atol=0)


POWERS = {
    "a root": lambda c, h: h.sigmoid() ** (1 / 16),  # as of gated linear attention's decays
    "more than the number": lambda c, h: h.relu() ** 2.5,
    "others for each unit": lambda c, h: h.sigmoid() ** c.v.abs(),
    "below the root of zero": lambda c, h: ((h + 200) / (2 - (h + 200).detach() ** c.v)).sqrt(),
}


@pytest.mark.parametrize("kind", POWERS)
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_power_of_zero_has_the_gradients_that_torch_gives_it(kind, backend):
    class Powers(user_cells.BareCell):
        def make(self, I, H):
            self.v = nn.Parameter(torch.tensor([0.0, 0.3, 1.0, 1.7, 2.0]))

        def step(self, x, state):
            return (POWERS[kind](self, x) + 0 * state[0],)

    cell, x = Powers(H, H), torch.full((1, 1, H), -200.0, requires_grad=True)

    def slopes(backend):
        y, _ = unroll(cell, x, backend=backend)
        return torch.autograd.grad(y.sum(), [x, cell.v], materialize_grads=True)

    torch.testing.assert_close(slopes(backend), slopes("reference"), equal_nan=True)


class RowsCell(user_cells.BareCell):
    """A function of the state and of a parameter, a matrix; I is H."""

    function, count = None, 1

    def make(self, I, H):
        self.rows = self.weight(self.count, H)

    def step(self, x, state):
        return (type(self).function(state[0] + x, self.rows),)


def with_rows(function, count=1):
    attributes = {"function": staticmethod(function), "count": count}
    return type("Custom", (RowsCell,), attributes)(H, H)


def check_replayed(cell):
    cell = cell.double()
    x, state = torch.randn(B, H).double(), (torch.randn(B, H).double(),)
    step, preparation = trace_step(cell)

    found = replay(step, x, state, read(cell, preparation))

    torch.testing.assert_close(found, cell.step(x, state), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda h, row: h * row.expand(h.shape[0], -1),
        lambda h, row: h * row.expand_as(h),
        lambda h, row: torch.zeros_like(h) + (h * row).mean(-1, keepdim=True),
        lambda h, row: h * (torch.ones_like(h) * F.linear(h, row)).sum(-1, keepdim=True),
        lambda h, row: torch.where(F.linear(h, row) > 0, h.sin(), h),
        lambda h, row: torch.addmm(row.T, row.T @ row, h.T).T,
    ],
    ids=[
        "a row",
        "a row like the state",
        "one number",
        "one number summed",
        "one condition",
        "a column before a product",
    ],
)
def test_what_is_spread_over_rows_or_units_is_traced(function):
    check_replayed(with_rows(function))


def written_to(h, rows):
    y = rows.repeat(len(h), 1, 1)
    y[:, 1] = h
    y.mul_(0.5)
    return (y * h[:, None]).sum(1)


REPEATED = {
    "written to": written_to,
    "multiplied": lambda h, rows: (rows.expand(len(h), -1, -1) * h[:, None]).sum(1),
    "copied": lambda h, rows: torch.cat([h[:, None], rows.repeat(len(h), 1, 1)], 1).amax(1),
    "alone": lambda h, rows: h + rows.expand(len(h), -1, -1).square().mean(1),
    "alike": lambda h, rows: F.cosine_similarity(h[:, None], rows, dim=-1) @ rows,
}


@pytest.mark.parametrize("function", REPEATED.values(), ids=REPEATED)
def test_parameters_that_are_repeated_for_each_row_take_part(function):
    check_replayed(with_rows(function, 3))


def complex_of(h):
    return torch.complex(h, h.sin())


def added(h, places):
    return torch.zeros_like(h).scatter_add(1, places.expand(len(h), -1), h)


def well_posed(rows):
    return torch.eye(H, dtype=rows.dtype) + (rows.T @ rows).triu()


PARTS, PAIR, EDGES = torch.tensor([1, 0, 1]), torch.tensor([1, 0]), torch.tensor([-0.5, 0, 0.5])
ADVICE = {
    "sort": (
        lambda h, _: h.sort(-1, descending=True)[0][:, :2],
        lambda h, _: h.topk(2)[0],
    ),
    "median": (lambda h, _: h.median(-1)[0], lambda h, _: h.topk(3)[0][:, 2]),
    "kthvalue": (lambda h, _: h.kthvalue(4, -1)[0], lambda h, _: h.topk(2)[0][:, 1]),
    "cummax": (
        lambda h, _: h.cummax(-1)[0],
        lambda h, _: torch.stack([h[:, :n].amax(-1) for n in range(1, H + 1)], -1),
    ),
    "cummin": (
        lambda h, _: h.cummin(-1)[0],
        lambda h, _: torch.stack([h[:, :n].amin(-1) for n in range(1, H + 1)], -1),
    ),
    "prod": (lambda h, _: h.sigmoid().prod(-1), lambda h, _: F.logsigmoid(h).sum(-1).exp()),
    "cumprod": (
        lambda h, _: h.sigmoid().cumprod(-1),
        lambda h, _: F.logsigmoid(h).cumsum(-1).exp(),
    ),
    "complex": (lambda h, _: complex_of(h).abs(), lambda h, _: torch.hypot(h, h.sin())),
    "view_as_complex": (
        lambda h, _: torch.view_as_complex(torch.stack([h, h.sin()], -1)).imag,
        lambda h, _: h.sin(),
    ),
    "polar": (lambda h, _: torch.polar(h.exp(), h).real, lambda h, _: h.exp() * h.cos()),
    "angle": (lambda h, _: h.angle(), lambda h, _: torch.where(h < 0, torch.pi, 0 * h)),
    "_fft_r2c": (lambda h, _: torch.fft.rfft(h).real[:, 0], lambda h, _: h.sum(-1)),
    "index_add": (
        lambda h, _: torch.zeros_like(h[:, :2]).index_add(1, PARTS, h[:, :3]),
        lambda h, _: torch.cat([h[:, 1:2], h[:, :1] + h[:, 2:3]], -1),
    ),
    "index_copy": (
        lambda h, _: h.index_copy(1, PAIR, h[:, 2:4]),
        lambda h, _: torch.cat([h[:, 3:4], h[:, 2:3], h[:, 2:]], -1),
    ),
    "scatter_add": (
        lambda h, _: added(h, torch.tensor([1, 1, 2, 3, 4])),
        lambda h, _: torch.cat([0 * h[:, :1], h[:, :1] + h[:, 1:2], h[:, 2:]], -1),
    ),
    "logcumsumexp": (
        lambda h, _: h.logcumsumexp(-1),
        lambda h, _: h.exp().cumsum(-1).log(),
    ),
    "any": (lambda h, _: h * (h > -9).any(), lambda h, _: h * (h > -9).any(-1, keepdim=True)),
    "all": (lambda h, _: h * (h < 9).all(), lambda h, _: h * (h < 9).all(-1, keepdim=True)),
    "_cdist_forward": (
        lambda h, rows: torch.cdist(h[:, None], rows)[:, 0],
        lambda h, rows: (h[:, None] - rows).norm(dim=-1),
    ),
    "_linalg_solve_ex": (
        lambda h, rows: torch.linalg.solve(well_posed(rows), h.T).T,
        lambda h, rows: h @ torch.linalg.inv(well_posed(rows)).T,
    ),
    "linalg_solve_triangular": (
        lambda h, rows: torch.linalg.solve_triangular(well_posed(rows), h.T, upper=True).T,
        lambda h, rows: h @ torch.linalg.inv(well_posed(rows)).T,
    ),
    "erfc": (lambda h, _: torch.erfc(h), lambda h, _: 1 - torch.erf(h)),
    "bucketize": (
        lambda h, _: torch.bucketize(h, EDGES).to(h.dtype),
        lambda h, _: sum((h > edge).to(h.dtype) for edge in (-0.5, 0, 0.5)),
    ),
    "searchsorted": (
        lambda h, _: torch.searchsorted(EDGES, h).to(h.dtype),
        lambda h, _: (h[..., None] > torch.tensor([-0.5, 0, 0.5])).sum(-1).to(h.dtype),
    ),
    "index": (
        lambda h, _: h[:, torch.tensor([True, False, True, False, False])],
        lambda h, _: h[:, [0, 2]],
    ),
    "max_pool2d_with_indices": (
        lambda h, _: F.max_pool1d(h[:, None], 2, 1)[:, 0],
        lambda h, _: h.unfold(-1, 2, 1).amax(-1),
    ),
    "masked_select": (
        lambda h, _: h.masked_select(h == h),
        lambda h, _: torch.where(h == h, h, 0.0),
    ),
    "masked_scatter": (
        lambda h, _: h.masked_scatter(h == h, h.sin()),
        lambda h, _: torch.where(h == h, h.sin(), h),
    ),
    "heaviside": (
        lambda h, rows: torch.heaviside(h, rows[0, 0]),
        lambda h, rows: torch.heaviside(h.detach(), rows[0, 0].detach()),
    ),
    "_local_scalar_dense": (
        lambda h, rows: h if rows[0, 0] > 0 else -h,
        lambda h, rows: torch.where(rows[0, 0] > 0, h, -h),
    ),
}
"""By operation: what is refused, and what a refusal tells to write instead."""


def averaged(function):
    """The same, made a function from units to as many units."""
    return lambda h, rows: h + function(h, rows).reshape(len(h), -1).mean(-1, keepdim=True)


def test_every_advice_is_tried():
    assert ADVICE.keys() == INSTEAD.keys()


@pytest.mark.parametrize("name", ADVICE)
def test_what_a_refusal_tells_to_write_instead_is_the_same_and_is_traced(name):
    refused, advised = map(averaged, ADVICE[name])
    cell, h = with_rows(advised, 3), torch.randn(B, H)

    with pytest.raises(Untraceable, match=f"aten.{name}; instead: {re.escape(INSTEAD[name])}"):
        trace_step(with_rows(refused, 3))
    torch.testing.assert_close(advised(h, cell.rows), refused(h, cell.rows))
    check_replayed(cell)


class LookingCell(user_cells.BareCell):
    """Looks at its input and its state as torch's attention does; I is H."""

    look = None

    def make(self, I, H):
        self.attention = nn.MultiheadAttention(H, 2, batch_first=True)

    def step(self, x, state):
        both = torch.stack([x, state[0]], 1)
        return (type(self).look(self.attention, both)[:, 0] + x,)


def heads(both):
    return both.view(-1, 2, 2, both.shape[-1] // 2).transpose(1, 2)


LOOKS = {
    "with its weights": lambda a, m: a(m[:, :1], m, m)[0],
    "without": lambda a, m: a(m[:, :1], m, m, need_weights=False)[0],
    "from all places": lambda a, m: a(m, m, m)[0],
    "from all places, without": lambda a, m: a(m, m[:, 1:], m[:, 1:], need_weights=False)[0],
    "all places as rows of one matrix": lambda a, m: (
        (2 * torch.tanh(m.transpose(0, 1).reshape(-1, m.shape[-1]) @ a.out_proj.weight) - 1)
        .view(2, -1, m.shape[-1])
        .transpose(0, 1)
    ),
    "causal": lambda a, m: (
        F.scaled_dot_product_attention(*3 * [heads(m)], is_causal=True).transpose(1, 2).flatten(2)
    ),
    "scaled, with a mask": lambda a, m: (
        F.scaled_dot_product_attention(*3 * [heads(m)], torch.eye(2).to(m), scale=0.3)
        .transpose(1, 2)
        .flatten(2)
    ),
    "turned inside": lambda a, m: (
        m.repeat(1, 2, 1).transpose(0, 1).contiguous().view(4, -1, m.shape[-1] // 2)
        .transpose(0, 1).sum(1).view(-1, 1, m.shape[-1])
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", LOOKS)
def test_attention_over_what_a_row_holds_is_traced(how):
    cell = type("Custom", (LookingCell,), {"look": staticmethod(LOOKS[how])})(6, 6).double()
    x, state = torch.randn(B, 6).double(), (torch.randn(B, 6).double(),)
    step, preparation = trace_step(cell)

    found = replay(step, x, state, read(cell, preparation))

    torch.testing.assert_close(found, cell.step(x, state), rtol=0, atol=1e-12)


def test_an_outer_product_by_matrices_is_the_same_as_by_numbers():
    class Outer(user_cells.BareCell):
        states, by = ("h", "m"), None

        def make(self, I, H):
            self.rate = self.weight(H)

        @property
        def state_sizes(self):
            return (self.hidden_size, self.hidden_size**2)

        def step(self, x, state):
            h, m = state
            m = 0.5 * m + type(self).by(h[:, :, None], x[:, None]).flatten(1)
            return torch.tanh(m.view(len(m), H, H).sum(-1) * self.rate), m

    kinds = [type("By", (Outer,), {"by": by}) for by in (torch.bmm, torch.mul)]
    one, other = (trace_step(kind(H, H))[0] for kind in kinds)

    assert step_to_text(one) == step_to_text(other)


def test_gaps_may_be_filled():
    cell, found = with_rows(lambda h, row: torch.where(torch.isnan(h), row, h).sin()), []
    for backend in ("c", "eager", "reference"):
        x = torch.full((2, 3, H), 0.3)
        x[1, 1, 2:] = torch.nan
        x.requires_grad_()
        y, _ = unroll(cell, x, backend=backend)
        found.append((y, *torch.autograd.grad(y.sum(), (x, cell.rows))))

    assert found[0][0].isfinite().all()
    for one in found[:-1]:
        torch.testing.assert_close(one, found[-1])


@pytest.mark.parametrize(
    "function",
    [
        lambda h, row: F.linear(torch.ones_like(h), row.T @ row) + h,
        lambda h, row: torch.cat([row.mean().expand(len(h), 1), h[:, 1:]], -1),
        lambda h, row: h * torch.cat([torch.ones_like(h), h], -1).tanh().sum(-1, keepdim=True),
        lambda h, row: h * torch.cat([torch.ones_like(h), h], -1).softmax(-1)[:, :H] + row,
        lambda h, row: row * h.softmax(-1)[:, :1] + h.softmax(-1),
        lambda h, row: (
            h * torch.full_like(h, 0.3).softmax(-1) + torch.ones_like(h).amax(-1)[:, None]
        ),
        lambda h, row: h * h.new_zeros(len(h), 2, H).log_softmax(1)[:, 1],
    ],
    ids=[
        "multiplied",
        "moved",
        "summed",
        "in a softmax",
        "one unit of a softmax",
        "as a softmax",
        "as a softmax of parts",
    ],
)
def test_numbers_that_are_the_same_for_all_rows_and_units_take_part(function):
    cell = with_rows(function).double()
    x = torch.randn(B, 3, H, dtype=torch.float64, requires_grad=True)

    found = []
    for backend in ("eager", "reference"):
        y, _ = unroll(cell, x, backend=backend)
        found.append((y, *torch.autograd.grad(y.sin().sum(), (x, cell.rows), allow_unused=True)))

    torch.testing.assert_close(*found)


def test_neither_inputs_nor_parts_are_taken_for_rows():
    def halves(x):
        return x * x.view(-1, 2, x.shape[1] // 2).mean(-1).amax(-1, keepdim=True)

    for size in range(10, 20):
        assert trace_step(user_cells.SideBySideCell(size, H))[0].products
        assert trace_step(with_function(halves)(I, 2 * size))[0].products


def test_a_state_of_another_width_is_named():
    class Wider(GatedCell):
        gates = ("h",)
        states = ("h", "c")

        def step(self, wx, state):
            return state[0], state[1][:, :2]

    with pytest.raises(Untraceable, match="returns state 'c' with shape"):
        trace_step(Wider(I, H))


class ChoosyCell(GatedCell):
    gates = ("h",)

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.register_buffer("places", torch.arange(input_size).flip(0))

    def project(self, x):
        return super().project(x[..., self.places])

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h),)


def test_a_projection_may_pick_features_by_places():
    for _ in range(20):
        torch.full((I,), 2**40)  # memory that is taken for the next tensor as it was left

        assert trace_step(ChoosyCell(I, H))[0].products


class LeakyCell(RNNCell):
    """Forgets at a rate of 0 or more, and would overflow at one below; its units change places."""

    def project(self, x):
        return torch.cat([super().project(x), F.softplus(x[..., :1])], -1)

    def step(self, wx, state):
        (h,) = state
        return (torch.tanh(wx[:, :H] + (h * torch.exp(-wx[:, H:])).flip(-1)),)


def test_steps_are_traced_whatever_torchs_products_round(rounded_products):
    assert trace_step(with_function(lambda x: x.flip(-1))(I, 100))[0].products


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_a_sum_that_says_its_dtype_is_a_reduction_as_any_other(name):
    def weighted(x):
        return x * getattr(x, name)(-1, keepdim=True, dtype=x.dtype)

    step, _ = trace_step(with_function(weighted)(I, H))

    assert (len(step.products), len(step.reductions)) == (1, 1)


@pytest.mark.parametrize("name", ["sum", "mean", "cumsum"])
def test_a_sum_that_rounds_to_fewer_digits_is_not_traced(name):
    def weighted(x):
        return x * getattr(x, name)(-1, dtype=torch.float32).view(len(x), -1)

    told = f"aten.{name} of torch.float64, which is torch.float32"
    with pytest.raises(Untraceable, match=told):
        trace_step(with_function(weighted)(I, H).double())


def test_a_step_need_not_bear_inputs_that_its_projection_never_gives():
    assert trace_step(LeakyCell(I, H))[0].products


class GroupedCell(GatedCell):
    """Four numbers for each unit; their sums stand beside inputs that are read one by one."""

    gates = ("x", "rate")
    recurrent = ()
    states = ("y", "s")

    @property
    def state_sizes(self):
        return self.hidden_size, 4 * self.hidden_size

    def project(self, x):
        return torch.cat([super().project(x), x[..., :4]], -1)

    def step(self, wx, state):
        x, rate, weight = wx.split([self.hidden_size, self.hidden_size, 4], -1)
        s = state[1].view(-1, self.hidden_size, 4)
        s = torch.sigmoid(rate)[..., None] * s + (rate * x)[..., None] * weight[:, None]
        return (s * weight[:, None]).sum(-1) + x, s.flatten(1)


@pytest.mark.parametrize("units", [2, 8, 9])
def test_sums_of_a_few_groups_take_no_product_for_each_number(units):
    cell = GroupedCell(4, units)

    assert len(trace_step(cell)[0].products) <= 3 * units + 4
    assert check_backend(cell, "eager", steps=(3,), dtypes=(torch.float64,)) == {}


class NothingCell(GatedCell):
    """Adds units side by side, times zero."""

    gates = ("h",)

    def update(self, wx, uh, state):
        nothing = torch.cat([uh.h[:, 3:].tanh(), state[0][:, :3]], -1) * 0
        return (torch.tanh(wx.h + uh.h) + nothing,)


def test_units_side_by_side_may_be_multiplied_by_zero():
    assert check_backend(NothingCell(I, 7), "eager", steps=(3,), dtypes=(torch.float64,)) == {}


class ComparingCell(GatedCell):
    """Units of a product, compared with some of themselves."""

    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h) + self.chosen(uh.h[:, 1:]).to(wx.h.dtype),)


COMPARED = {
    "one unit": lambda u: (u >= u[:, 3:4]) & (u <= u[:, 3:4]),
    "the largest of some": lambda u: u[:, 2:10] >= u[:, :10].amax(-1, keepdim=True),
    "the sign of a difference": lambda u: torch.sign(u - u[:, 3:4]) >= 0,
    "the largest but the first": lambda u: u[:, 1:] >= u[:, 1:].amax(-1, keepdim=True),
    "a function of one unit": lambda u: (v := u.tanh() * u.sigmoid())[:, 3:4] <= v,
    "moved units, in pieces": lambda u: torch.where(
        u == u.repeat_interleave(2, -1)[:, 1::2], 0, torch.cat([u[:, 3:], u[:, :3]], -1)
    ),
    "a function of moved units, in pieces": lambda u: torch.where(
        (v := u.tanh() * u.sigmoid()) == v.repeat_interleave(2, -1)[:, 1::2],
        0,
        torch.cat([u[:, 3:], u[:, :3]], -1),
    ),
}


@pytest.mark.parametrize("chosen", COMPARED.values(), ids=COMPARED)
@pytest.mark.parametrize("backend", ["c", "eager"])
def test_a_product_that_is_compared_with_itself_is_computed_once(chosen, backend):
    def padded(u):
        found = chosen(u)
        return F.pad(found, (0, u.shape[1] + 1 - found.shape[1]))

    cell = type("Custom", (ComparingCell,), {"chosen": staticmethod(padded)})(I, 17)
    torch.nn.init.normal_(cell.weight_hh)
    x = torch.randn(9, 7, I)

    y, expected = (unroll(cell, x, backend=b)[0] for b in (backend, "reference"))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-3)  # a unit that is missed adds 1


class PonderingCell(GatedCell):
    """Of what is left over, a share is used up, again and again."""

    gates = ("h",)

    def update(self, wx, uh, state):
        left = torch.sigmoid(uh.h)
        for share in range(2, 16):
            left = 0.9 - left * (1 / share)
        return (torch.where(left > 0.5, torch.tanh(wx.h + uh.h), state[0]),)


def test_what_is_compared_is_looked_at_once_for_each_difference_in_it(monkeypatch):
    looks = []
    monkeypatch.setattr(copying, "walk", lambda *given: looks.append(given) or walk(*given))

    trace_step(PonderingCell(I, 7))

    assert len(looks) < 100


class LoudestCell(GatedCell):
    """Writes units that are not below the first alone."""

    gates = ("f", "n")

    def update(self, wx, uh, state):
        (h,) = state
        n = torch.tanh(wx.n + uh.n) * (uh.n >= uh.n[:, :1])
        return (h + torch.sigmoid(wx.f + uh.f) * (n - h),)


def test_gates_beside_one_that_is_compared_with_itself_are_not_copied():
    step, _ = trace_step(LoudestCell(I, 7))

    assert {product.weight.columns for product in step.products} == {7}


class PiecewiseCell(GatedCell):
    """A part in three pieces between two others, of which one is read in halves and written whole.

    Attributes:
        whole: Whether the part in pieces is read whole too.
    """

    gates = ("x",)
    recurrent = ()
    states = ("y", "s", "m")
    whole = False

    @property
    def state_sizes(self):
        return self.hidden_size, 3 * self.hidden_size, 2 * self.hidden_size

    def add_parameters(self, parameter):
        self.start = parameter(6 * self.hidden_size)

    def initial_state(self, batch_size):
        H = self.hidden_size
        return self.start.expand(batch_size, -1).split([H, 3 * H, 2 * H], -1)

    def step(self, wx, state):
        y, s, m = state
        a, b, c = s.chunk(3, -1)
        low, high = m.chunk(2, -1)
        a, b, c = torch.tanh(b + wx), 0.5 * a + y, c * high
        added = s.mean(-1, keepdim=True) if self.whole else 0.1
        return a - b + low, torch.cat([a, b, c], -1), 0.9 * m + added


def test_a_state_that_is_read_and_written_in_pieces_takes_no_product():
    cell = PiecewiseCell(3, 4)
    torch.nn.init.normal_(cell.start)
    plan = plan_of(cell)

    assert plan.pieces == (1, 3, 1)
    assert plan.step.state_sizes == (4, 4, 4, 4, 8)
    assert {product.value.what.key for product in plan.step.products} == {4}
    assert check_backend(cell, "eager", steps=(1, 4), dtypes=(torch.float64,)) == {}


class DelayingCell(GatedCell):
    """The last three inputs, of which the output is a convolution."""

    gates = ("x",)
    recurrent = ()
    states = ("y", "v")

    @property
    def state_sizes(self):
        return self.hidden_size, 3 * self.hidden_size

    def step(self, wx, state):
        window = (wx, *state[1].chunk(3, -1))
        y = sum(part / (k + 1) for k, part in enumerate(window))
        return y, torch.cat(window[:3], -1)


@pytest.mark.parametrize("backend", ["eager", "scan"])
def test_pieces_that_move_to_other_places_take_no_product(backend):
    cell = DelayingCell(3, 4)

    assert plan_of(cell).pieces == (1, 3)
    assert plan_of(cell).step.products == ()
    assert check_backend(cell, backend, steps=(1, 6), dtypes=(torch.float64,)) == {}


def test_a_state_that_is_also_read_whole_is_not_cut():
    cell = PiecewiseCell(3, 4)
    torch.nn.init.normal_(cell.start)
    cell.whole = True

    assert plan_of(cell).pieces == ()
    assert check_backend(cell, "eager", steps=(3,), dtypes=(torch.float64,)) == {}


def test_tracing_changes_nothing_in_the_cell():
    cell, wx, state = example(LSTMCell)
    before = cell.step(wx, state)

    trace_step(cell)

    torch.testing.assert_close(cell.step(wx, state), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in cell.parameters())


ODD = {
    name: FUNCTIONS[name]
    for name in ("softplus", "elu", "mish", "leaky relu", "hard sigmoid", "clamp")
} | {
    "selu": F.selu,
    "celu": partial(F.celu, alpha=0.7),
    "log sigmoid": F.logsigmoid,
    "hard tanh": F.hardtanh,
    "hard swish": F.hardswish,
    "relu 6": F.relu6,
    "sinc": torch.sinc,
    "length 1": lambda x: F.normalize(x, dim=-1),
    "over its spread": lambda x: x / (x.std(-1, keepdim=True) + 1e-3),
    "over its norm": lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-3),
    "over its largest": lambda x: x / (x.abs().amax(-1, keepdim=True) + 1e-3),
    "a share": lambda x: F.softmax(x, -1) + F.log_softmax(x, -1),
    "between two tensors": lambda x: x.clamp(-x.abs(), x.abs()),
    "at least a number": lambda x: x.clamp(min=1),
    "between numbers": lambda x: x.clamp(-1, 3),
    "at least a tensor": lambda x: x.clamp(min=x.abs()),
    "at most a tensor": lambda x: x.clamp(max=-x.abs().square()),
    "the larger, but for NaN": lambda x: torch.fmax(x, x.abs()),
    "the smaller, but for NaN": lambda x: torch.fmin(x, -x.square()),
    "the larger of it and a number": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "the smaller of it and a number": lambda x: torch.minimum(x, torch.full_like(x, 3.0)),
    "the first of the largest": lambda x: x * x.max(-1, keepdim=True)[0].sin(),
    "how often a number goes": lambda x: x * x.div(0.3, rounding_mode="floor"),
    "what a number leaves": lambda x: torch.fmod(x, 0.3),
}


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 120.0, -120.0, 2e4])
@pytest.mark.parametrize("function", ODD.values(), ids=ODD)
def test_derivatives_are_torchs_at_kinks_and_far_out(function, value):
    cell, found = input_cell(function)(H, H), []
    for backend in ("c", "eager", "reference"):
        x = torch.full((2, 1, H), value, requires_grad=True)
        y, _ = unroll(cell, x, backend=backend)
        found.append((y, *torch.autograd.grad(y.square().sum() + y.sum(), x)))

    for one in found[:-1]:
        torch.testing.assert_close(one, found[-1], equal_nan=True)
