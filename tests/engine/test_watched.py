"""Who writes down what torch's operations do sees operations: no loop of ours hides among them."""

import subprocess
import sys
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

import seqnets
from seqnets import Recurrent, Stream, explain, unroll
from seqnets.cells import GRUCell, PeepholeLSTMCell, SRUCell
from seqnets.engine import c, compiling, products
from seqnets.errors import BackendError, DtypeError

LAYERS = {
    "LSTM": lambda: seqnets.LSTM(3, 4, batch_first=True),
    "GRU": lambda: seqnets.GRU(3, 4, batch_first=True),
    "a cell without a kernel of torch's": lambda: Recurrent(PeepholeLSTMCell(3, 4)),
    "a linear cell": lambda: Recurrent(SRUCell(3, 4)),
}


def numbers():
    return torch.randn(2, 5, 3)


@pytest.fixture(params=LAYERS)
def layer(request):
    return LAYERS[request.param]().eval()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("grad", [True, False])
def test_what_torch_jit_trace_writes_down_computes_the_same(layer, grad):
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(layer, (numbers(),))
        x = numbers()

        torch.testing.assert_close(traced(x)[0], layer(x)[0])


def test_a_trace_of_the_plain_loop_says_for_which_length_it_is_right():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.jit.trace(Recurrent(PeepholeLSTMCell(3, 4)), (numbers(),))

    assert any("records all T = 5 steps" in str(warning.message) for warning in told)


TRACED = """
import torch, seqnets
torch.jit.trace(seqnets.LSTM(3, 4, 2), (torch.randn(2, 5, 3),))
torch.jit.trace(seqnets.LSTMCell(3, 4), (torch.randn(2, 3),))
"""


def test_a_trace_of_torchs_kernels_warns_of_nothing():
    # In a process of its own: pytest has other filters of warnings.
    done = subprocess.run([sys.executable, "-c", TRACED], capture_output=True, text=True)

    assert not done.returncode, done.stderr
    assert "TracerWarning" not in done.stderr


class Packing(nn.Module):
    """A model that packs what it is given, and pads what it gives."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = getattr(seqnets, kind)(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.rnn(packed)
        return pad_packed_sequence(y, batch_first=True)[0]


ALIKE = torch.randn(3, 5, 3), torch.tensor([5, 5, 5])
RAGGED = torch.randn(2, 5, 3), torch.tensor([2, 5])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "MGU"])
def test_a_trace_of_packed_rows_of_one_length_is_right_for_others(kind):
    model = Packing(kind).eval()

    traced = torch.jit.trace(model, ALIKE)

    torch.testing.assert_close(traced(*RAGGED), model(*RAGGED))


@pytest.mark.filterwarnings("ignore")  # torch's exporter has many to tell
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "MGU"])
@pytest.mark.parametrize("given", [ALIKE, RAGGED])
def test_packed_sequences_go_to_onnx(kind, given, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = Packing(kind).eval(), tmp_path / "model.onnx"
    names = {"x": {0: "B"}, "lengths": {0: "B"}}

    torch.onnx.export(model, given, path, dynamo=False, input_names=list(names), dynamic_axes=names)

    fed = {name: tensor.numpy() for name, tensor in zip(names, RAGGED, strict=True)}
    (y,) = onnxruntime.InferenceSession(path).run(None, fed)
    torch.testing.assert_close(torch.from_numpy(y), model(*RAGGED))


@pytest.mark.parametrize("grad", [True, False])
def test_what_make_fx_writes_down_computes_the_same(layer, grad):
    with torch.set_grad_enabled(grad):
        graph = make_fx(lambda x: layer(x)[0])(numbers())
        x = numbers()

        torch.testing.assert_close(graph(x), layer(x)[0])


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx_takes_lengths_whose_values_it_does_not_know(mode):
    layer, x, lengths = Recurrent(GRUCell(3, 4)), numbers(), torch.tensor([5, 2])

    def call(x, lengths):
        return layer(x, lengths=lengths)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # with open sizes, it is right for this many steps
        graph = make_fx(call, tracing_mode=mode, _allow_non_fake_inputs=True)(x, lengths)

    others = torch.tensor([1, 4])
    torch.testing.assert_close(graph(x, others), call(x, others))


def test_make_fx_may_leave_sizes_open():
    theirs, ours = (library.LSTM(3, 4) for library in (nn, seqnets))
    parameters = dict(theirs.named_parameters())
    ours.load_state_dict(theirs.state_dict())
    call = partial(torch.func.functional_call, ours)

    graph = make_fx(lambda *given: call(*given)[0], tracing_mode="symbolic")(parameters, numbers())

    x = torch.randn(3, 7, 3)
    torch.testing.assert_close(graph(parameters, x), theirs(x)[0])


# torch 2.10 adds a dimension to the state where it writes down an LSTM of sequences time first
DEEP = [partial(seqnets.LSTM, num_layers=2)] if torch.__version__ >= "2.11" else []


@pytest.mark.parametrize("make", [*DEEP, seqnets.GRU, seqnets.MGU])
def test_make_fx_says_where_it_closes_a_size_that_it_may_leave_open(make):
    layer = make(3, 4, batch_first=True)
    call = partial(torch.func.functional_call, layer)

    with pytest.warns(UserWarning, match="records all T = 5 steps"):
        make_fx(call, tracing_mode="symbolic")(dict(layer.named_parameters()), numbers())


@pytest.mark.parametrize("lengths", [torch.tensor([5, 2]), [5, 2]], ids=["tensor", "list"])
def test_fake_tensors_get_shapes_where_rows_have_lengths(lengths):
    with FakeTensorMode(allow_non_fake_inputs=True):
        y, (h,) = Recurrent(GRUCell(3, 4))(numbers(), lengths=lengths)

    assert (y.shape, h.shape) == ((2, 5, 4), (2, 4))


def test_fake_tensors_get_shapes(layer):
    with FakeTensorMode(allow_non_fake_inputs=True):
        y, _ = layer(numbers())

    assert tuple(y.shape) == (2, 5, 4)


def test_on_the_meta_device_there_are_shapes_too(layer):
    y, _ = layer.to("meta")(numbers().to("meta"))

    assert tuple(y.shape) == (2, 5, 4)
    assert y.is_meta


class Elsewhere(torch.Tensor):
    """A weight whose class runs all operations, on numbers elsewhere: as of a quantised one."""

    @staticmethod
    def __new__(cls, numbers):
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype)

    def __init__(self, numbers):
        self.numbers = numbers

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(cls, lambda weight: weight.numbers, (args, kwargs or {}))
        same = {torch.ops.aten.detach.default, torch.ops.aten.clone.default}
        return cls(func(*args, **kwargs)) if func in same else func(*args, **kwargs)


@pytest.fixture(params=[GRUCell, PeepholeLSTMCell])
def changed_cell(request):
    """A cell whose weights went elsewhere after some calls, and what it gave for an input."""
    cell, x = request.param(3, 32), torch.randn(2, 40, 3)
    for _ in range(2):
        expected, _ = unroll(cell, x, backend="c")
    for name in ("weight_ih", "weight_hh"):
        weight = Elsewhere(getattr(cell, name).detach())
        setattr(cell, name, nn.Parameter(weight, requires_grad=False))
    return cell, x, expected


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_weights_that_are_elsewhere_never_reach_a_kernel(changed_cell, backend, monkeypatch):
    cell, x, expected = changed_cell
    monkeypatch.setattr(c, "run", None)  # it would read memory that they do not have

    with pytest.raises(BackendError, match="weight_ih is of class Elsewhere, which runs"):
        unroll(cell, x, backend="c")  # first: its last call is remembered
    y, _ = unroll(cell, x, backend=backend)

    torch.testing.assert_close(y, expected)


def test_a_product_of_matrices_that_are_elsewhere_is_torchs(monkeypatch):
    monkeypatch.setattr(products, "_ours", lambda *sizes: True)
    monkeypatch.setattr(products, "multiply", None)  # it would read their memory, too
    a, b, bias = torch.randn(2, 3), torch.randn(3, 4), torch.randn(4)

    for place in range(3):
        given = [a, b, bias]
        given[place] = Elsewhere(given[place])
        torch.testing.assert_close(products.product(*given), a @ b + bias)


@pytest.mark.parametrize("name", ["state", "lengths", "resets"])
def test_arguments_that_are_elsewhere_never_reach_a_kernel(name):
    cell, x = PeepholeLSTMCell(3, 8), torch.randn(2, 7, 3)
    state = tuple(torch.randn(2, 2, 8))
    given = {"state": state, "lengths": torch.tensor([7, 4]), "resets": torch.rand(2, 7) < 0.3}
    given = {name: given[name]}
    for _ in range(2):
        expected, _ = unroll(cell, x, **given, backend="c")
    there = tree_map_only(torch.Tensor, Elsewhere, given)

    y, _ = unroll(cell, x, **there)

    torch.testing.assert_close(y, expected)
    with pytest.raises(BackendError, match=f"{name}.* is of class Elsewhere, which runs"):
        unroll(cell, x, **there, backend="c")


def test_a_stream_of_weights_that_are_elsewhere_is_by_the_plain_loop(changed_cell):
    cell, x, expected = changed_cell
    stream = Stream(Recurrent(cell), batch_size=2)

    steps = torch.stack([stream(x_t).clone() for x_t in x.unbind(1)], 1)

    assert stream.backend == "reference"
    torch.testing.assert_close(steps, expected)


def test_a_counter_of_operations_counts_those_of_the_loop():
    with FlopCounterMode(display=False) as counter:
        Recurrent(PeepholeLSTMCell(3, 4))(numbers())

    products = 2 * (2 * 5) * 16 * 3 + 5 * (2 * 2 * 16 * 4)
    assert counter.get_total_flops() == products


def test_the_reason_is_told():
    cell, x = PeepholeLSTMCell(3, 4), numbers()

    with FlopCounterMode(display=False):
        told = explain(cell, x)

    assert "watches torch's operations" in told.refusals["c"]
    assert explain(cell, x).chosen == "c"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_writer_of_graphs_is_served(tmp_path, layer):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        writer.add_graph(nn.Sequential(layer), numbers())


def test_the_operators_gradient_can_be_differentiated_again():
    cell = PeepholeLSTMCell(3, 4).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    names = compiling.parameters_used(cell)
    parameters = [cell.get_parameter(name) for name in names]
    start = list(cell.initial_state(2))

    seconds = []
    for outputs in (
        torch.ops.seqnets.unroll(
            cell.project(x), [*start, *parameters], None, None, False, True, compiling.text_of(cell)
        ),
        unroll(cell, x, backend="reference"),
    ):
        (first,) = torch.autograd.grad(outputs[0].sin().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x))

    torch.testing.assert_close(*seconds)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_operator_takes_all_tensors_in_one_dtype_whichever_it_is(dtype):
    cell, x = PeepholeLSTMCell(3, 4), numbers()
    expected, _ = unroll(cell, x, backend="reference")
    names = compiling.parameters_used(cell)
    given = [*cell.initial_state(2), *(cell.get_parameter(name) for name in names)]
    text, wx = compiling.text_of(cell), cell.project(x).detach().to(dtype)

    def run(given):
        return torch.ops.seqnets.unroll(wx, given, None, None, False, False, text)[0]

    torch.testing.assert_close(
        run([part.detach().to(dtype) for part in given]).float(),
        expected,
        rtol=0,
        atol=20 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 1e-6,
    )
    with pytest.raises(DtypeError, match="expected one dtype"):
        run([given[0].detach().to(torch.int8), *(part.detach().to(dtype) for part in given[1:])])


@pytest.mark.parametrize("backend", ["c", "eager", "reference"])
def test_a_profiler_shows_the_names_of_cell_and_backend(backend):
    layer, x = Recurrent(PeepholeLSTMCell(3, 4), backend=backend), numbers()
    layer(x)

    with torch.profiler.profile(acc_events=True) as watched:
        y, _ = layer(x)
        y.sum().backward()

    names = {event.name for event in watched.events()}
    assert f"PeepholeLSTMCell ({backend})" in names
    assert ("PeepholeLSTMCellBackward" in names) == (backend != "reference")
    assert not any("_Fused" in name for name in names)
