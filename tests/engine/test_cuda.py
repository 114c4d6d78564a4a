"""What users do with layers on a GPU; where there is none, nothing of this runs."""

import warnings

import pytest
import torch

import seqnets
from seqnets import Bidirectional, DeepRNN, Recurrent, unroll
from seqnets.cells import (
    GRUCell,
    LSTMCell,
    MinGRUCell,
    OriginalGRUCell,
    PeepholeLSTMCell,
    QRNNCell,
)
from seqnets.engine import native, runs
from seqnets.testing import check_backend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

WIDE = 96  # units: programs have to meet


def numbers(*shape):
    return torch.randn(*shape, device="cuda")


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def gradients(y, x, layer):
    return torch.autograd.grad(y.square().sum(), (x, *layer.parameters()))


@pytest.mark.parametrize("cell_cls", [LSTMCell, OriginalGRUCell])
def test_programs_that_meet_agree_with_the_reference(cell_cls):
    cell = cell_cls(3, WIDE).cuda()

    assert check_backend(cell, "triton", steps=(1, 20), dtypes=(torch.float32,)) == {}


@pytest.mark.parametrize("T", [1, 20, 700])
def test_steps_side_by_side_agree_with_the_reference(T):
    cell = QRNNCell(3, WIDE).cuda()

    assert check_backend(cell, "scan", steps=(T,), dtypes=(torch.float32,)) == {}


def test_steps_side_by_side_are_taken_under_autocast_and_by_the_compiler_too():
    layer, x = Recurrent(MinGRUCell(3, WIDE)).cuda(), numbers(4, 300, 3).requires_grad_()
    before = runs["scan"]
    expected, _ = layer(x)

    with torch.autocast("cuda", torch.bfloat16):
        halved, _ = layer(x)
    compiled, _ = torch.compile(layer, fullgraph=True)(x)

    assert runs["scan"] == before + 2
    torch.testing.assert_close(halved.float(), expected, rtol=0, atol=5e-2)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(
        gradients(compiled, x, layer), gradients(expected, x, layer), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_same_numbers_give_the_same_bits():
    cell, x = GRUCell(3, WIDE).cuda(), numbers(33, 50, 3).requires_grad_()

    first, second = (gradients(unroll(cell, x, backend="triton")[0], x, cell) for _ in range(2))

    assert all(map(torch.equal, first, second))


def test_a_training_step_can_be_captured_as_a_graph_and_replayed():
    layer = DeepRNN(PeepholeLSTMCell, 3, WIDE, num_layers=2).cuda()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    x = numbers(4, 20, 3)

    def step():
        optimizer.zero_grad(set_to_none=False)
        y, _ = layer(x)
        y.square().mean().backward()
        optimizer.step()
        return y

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = step()
    x.copy_(numbers(4, 20, 3))
    expected, _ = layer(x)
    graph.replay()
    torch.cuda.synchronize()

    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not torch.equal(layer(x)[0], expected)  # the parameters have moved


def test_nothing_waits_for_the_gpu():
    layer = Bidirectional(LSTMCell(3, WIDE)).cuda()
    x, lengths = numbers(4, 20, 3), torch.tensor([20, 0, 7, 3], device="cuda")
    layer(x, lengths=lengths)[0].sum().backward()  # compiles
    torch.cuda.synchronize()

    torch.cuda.set_sync_debug_mode("error")
    try:
        layer(x, lengths=lengths)[0].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("own_thread", [True, False], ids=["autograd's thread", "this thread"])
def test_both_directions_at_a_time_are_the_same_as_one_after_the_other(own_thread):
    layer = Bidirectional(GRUCell(3, WIDE), backend="triton").cuda()
    x = numbers(8, 60, 3).requires_grad_()

    for _ in range(5):  # memory is given to others soon
        y, _ = layer(x)
        ahead, _ = unroll(layer.forward_layer.cell, x, backend="triton")
        back, _ = unroll(layer.backward_layer.cell, x, reverse=True, backend="triton")
        both = torch.cat([ahead, back], -1)
        assert torch.equal(y, both)
        expected = gradients(both, x, layer)
        with torch.autograd.set_multithreading_enabled(own_thread):
            found = gradients(y, x, layer)
        torch.testing.assert_close(found, expected)


def test_it_runs_on_the_stream_it_is_called_on():
    cell, x = LSTMCell(3, WIDE).cuda(), numbers(4, 20, 3)
    expected, _ = unroll(cell, x, backend="triton")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())

    with torch.cuda.stream(stream):
        y, _ = unroll(cell, x, backend="triton")
    stream.synchronize()

    assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_computes_in_its_own_dtype(dtype):
    layer, x = Recurrent(GRUCell(3, WIDE).cuda(), backend="triton"), numbers(4, 20, 3)
    exact, _ = unroll(layer.cell, x, backend="reference")

    with torch.autocast("cuda", dtype):
        y, _ = layer(x)
    y.float().sum().backward()

    assert y.dtype == dtype
    assert layer.cell.weight_hh.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=2e-2)


def test_the_compiler_sees_one_operator():
    layer, x = Recurrent(PeepholeLSTMCell(3, WIDE).cuda()), numbers(4, 20, 3).requires_grad_()
    expected, _ = layer(x)
    compiled = torch.compile(layer, fullgraph=True)

    y, _ = compiled(x)

    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(gradients(y, x, layer), gradients(expected, x, layer), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", ["triton", "native"])
def test_a_gradient_can_be_differentiated_again(backend):
    cell, x = LSTMCell(3, 8).cuda(), numbers(2, 5, 3).requires_grad_()
    seconds = []
    for name in (backend, "reference"):
        y, _ = unroll(cell, x, backend=name)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])

    torch.testing.assert_close(*seconds, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rows", [3, 5], ids=["fewer rows than steps", "as many"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["rows first", "time first"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_stacks_gradient_can_be_differentiated_again_in_both_layouts(kind, batch_first, rows):
    torch.manual_seed(0)
    module = getattr(seqnets, kind)(4, 8, 2, bidirectional=True).cuda()
    cells = module.bound_cells()
    x = numbers(rows, 5, 4).requires_grad_()
    given = x if batch_first else x.transpose(0, 1)
    y, _ = native.layers_at_once(cells, given, 2, 0.0, batch_first)(given, None)
    outputs = [y if batch_first else y.transpose(0, 1), one_after_the_other(cells, x)]
    seconds = []
    for y in outputs:
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])

    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*seconds, rtol=1e-3, atol=1e-4)


def one_after_the_other(cells, x):
    """A stack of both directions by the plain loop; all is (B, T, ...)."""
    for ahead, back in zip(cells[::2], cells[1::2], strict=True):
        both = [
            unroll(cell, x, reverse=reverse, backend="reference")[0]
            for cell, reverse in ((ahead, False), (back, True))
        ]
        x = torch.cat(both, -1)
    return x


def test_auto_takes_the_kernels_for_a_cell_that_torch_does_not_know():
    before = runs["triton"]

    Recurrent(PeepholeLSTMCell(3, WIDE).cuda())(numbers(4, 20, 3))

    assert runs["triton"] == before + 1


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_weights_in_float16_lie_in_one_memory_where_cudnn_reads_them(kind):
    theirs = getattr(torch.nn, kind)(128, 128, batch_first=True)
    ours = getattr(seqnets, kind)(128, 128, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    theirs, ours = theirs.half().cuda(), ours.half().cuda()
    x = numbers(8, 20, 128).half().requires_grad_()

    expected, _ = theirs(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns of weights that lie apart
        y, _ = unroll(ours.bound_cells()[0], x, backend="native")

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(y, x, ours), gradients(expected, x, theirs))
