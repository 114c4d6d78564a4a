"""Cells for which ONNX has no operator: a Scan over their step, compared in ONNX Runtime."""

import numpy as np
import pytest
import torch

from seqnets import Bidirectional, DeepRNN, Recurrent, cells
from seqnets.conversion import difference, onnx_step, read, to_onnx, write
from seqnets.conversion.onnx_model import run
from seqnets.engine import graph
from seqnets.errors import ConfigError
from tests.cells.final import MATRIX_CELLS, TRACED_CELLS, sized
from tests.cells.test_options import OPTIONS, with_all
from tests.engine.user_cells import USER_CELLS, ZoneoutCell
from tests.slow import mostly_slow

REASON = "needs onnx and ONNX Runtime: pip install 'seqnets[convert]'"
onnx = pytest.importorskip("onnx", reason=REASON)
runtime = pytest.importorskip("onnxruntime", reason=REASON)

pytestmark = pytest.mark.usefixtures("plain_loop")


class RunningCell(cells.MGUCell):
    """It reads the sum of all inputs so far, which no step knows of itself."""

    def project(self, x):
        return super().project(x.cumsum(1) if x.dim() == 3 else x)


class PickingCell(cells.RNNCell):
    """Adds some of the units to all."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.register_buffer("mask", torch.arange(self.hidden_size) > 2)

    def step(self, wx, state):
        (h,) = super().step(wx, state)
        return (h + h[:, self.mask].sum(-1, True),)


@torch.no_grad()
def moved(module):
    """A network in evaluation mode whose parameters are a little off their initial values."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def session(model):
    onnx.checker.check_model(model, full_check=True)
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def drawn_inputs(B, T, features):
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(T + 1, (B,), generator=generator)
    lengths[0] = 0
    return torch.randn(B, T, features, generator=generator), lengths


def as_lists(final, both):
    """Each part of a layer's last state, (D, B, H)."""
    directions = final if both else (final,)
    return [torch.stack(parts) for parts in zip(*directions, strict=True)]


def has_scan(model):
    return any(node.op_type == "Scan" for node in model.graph.node)


@torch.no_grad()
def assert_agree(layer):
    """A model with lengths gives outputs and last states of a layer, in several sizes."""
    both, model = isinstance(layer, Bidirectional), to_onnx(layer)
    runs = session(model)
    for B, T in ((3, 6), (1, 1), (4, 9)):
        x, lengths = drawn_inputs(B, T, layer.input_size)
        y, final = layer(x, lengths=lengths)
        fed = {"x": x.transpose(0, 1).contiguous().numpy(), "lengths": lengths.int().numpy()}

        theirs, *last = runs.run(None, fed)

        np.testing.assert_allclose(theirs.swapaxes(0, 1), y, atol=1e-5, rtol=1e-4)
        rows = (lengths >= 0 if has_scan(model) else lengths > 0).numpy()  # operators forget others
        for found, expected in zip(last, as_lists(final, both), strict=True):
            np.testing.assert_allclose(found[:, rows], expected[:, rows], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cell_cls", TRACED_CELLS)
def test_every_cell_that_is_traced_becomes_a_model_for_any_number_of_rows_and_steps(cell_cls):
    assert_agree(moved(Recurrent(sized(cell_cls, 3, 5))))


BOTH = (cells.MGUCell, cells.SLSTMCell)


@pytest.mark.parametrize("cell_cls", mostly_slow(TRACED_CELLS, quick=BOTH))
def test_every_cell_runs_in_both_directions(cell_cls):
    assert_agree(moved(Bidirectional(sized(cell_cls, 3, 5), sized(cell_cls, 3, 5))))


@pytest.mark.parametrize("cell_cls", [cell for cell in USER_CELLS if cell is not ZoneoutCell])
def test_users_cells_agree_with_every_function_that_they_call(cell_cls):
    assert_agree(moved(Recurrent(cell_cls(3, 6))))


@pytest.mark.parametrize("cell_cls", [cells.LSTMCell, cells.OriginalGRUCell])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_around_a_cell_stay(option, cell_cls):
    assert_agree(moved(Recurrent(OPTIONS[option](cell_cls(3, 5)))))


@pytest.mark.parametrize("cell_cls", mostly_slow(TRACED_CELLS, quick=(cells.MUT1Cell,)))
def test_cells_with_all_options_that_apply_agree(cell_cls):
    assert_agree(moved(Recurrent(with_all(sized(cell_cls, 3, 5)))))


def test_a_projected_lstm_and_rounds_of_a_mogrifier_agree():
    assert_agree(moved(Recurrent(cells.LSTMCell(3, 5, proj_size=2))))
    assert_agree(moved(Recurrent(cells.Mogrifier(cells.LSTMCell(3, 5)))))


@pytest.mark.parametrize("cell_cls", MATRIX_CELLS)
def test_a_small_memory_of_matrices_is_written_number_by_number(cell_cls):
    assert_agree(moved(Recurrent(sized(cell_cls, 3, 4))))


@torch.no_grad()
@pytest.mark.parametrize("timed", [False, True])
def test_a_cell_that_takes_missing_values_takes_them_in_a_file_too(timed):
    layer = moved(Recurrent(cells.GRUDCell(3, 5, timed=timed)))
    x, _ = drawn_inputs(4, 6, 3)
    x[:, ::2, :2] = torch.nan

    y, *_ = session(to_onnx(layer, lengths=False)).run(None, {"x": x.transpose(0, 1).numpy()})

    np.testing.assert_allclose(y.swapaxes(0, 1), layer(x)[0], atol=1e-6)


def test_layers_with_and_without_an_operator_follow_each_other():
    made = iter((cells.GRUCell, cells.MGUCell, cells.LSTMCell))
    net = moved(DeepRNN(lambda **sizes: next(made)(**sizes), 3, 5, 3))
    model = to_onnx(net)

    kinds = [n.op_type for n in model.graph.node if n.op_type in ("GRU", "Scan", "LSTM")]
    assert kinds == ["GRU", "Scan", "LSTM"]
    names = [output.name for output in model.graph.output]
    assert names == ["y", "h_0", "h_1", "h_2", "c_2"]
    assert difference(net, lambda x, lengths: run(model, x, lengths)) <= 1e-5


@torch.no_grad()
def test_a_model_continues_from_a_state():
    layer = moved(Recurrent(cells.PeepholeSRUCell(5, 5)))
    x = torch.randn(2, 7, 5)
    y, final = layer(x)
    runs = session(to_onnx(layer, lengths=False, state=True))
    names = [value.name for value in runs.get_inputs()]
    state = [np.zeros((1, 2, 5), np.float32) for _ in final]
    pieces = []

    for part in x.split(3, 1):
        fed = [part.transpose(0, 1).contiguous().numpy(), *state]
        found, *state = runs.run(None, dict(zip(names, fed, strict=True)))
        pieces.append(found)

    assert names == ["x", *(f"initial_{name}_0" for name in layer.cell.states)]
    np.testing.assert_allclose(np.concatenate(pieces).swapaxes(0, 1), y, atol=1e-5)
    for found, expected in zip(state, final, strict=True):
        np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"lengths": False}, {"lengths": False, "state": True}])
@pytest.mark.parametrize("make", [cells.MGUCell, lambda *a: cells.LearnedState(cells.MGUCell(*a))])
def test_a_file_with_a_scan_is_checked_and_not_read(make, options, tmp_path):
    path = tmp_path / "net.onnx"
    net = moved(Bidirectional(make(3, 5), make(3, 5)))

    assert write(net, path, "onnx", **options) <= 1e-5
    with pytest.raises(ConfigError, match=r"a Scan runs over time, expected operators alone"):
        read(path, "onnx")


def test_every_function_of_a_graph_is_printed():
    printed = onnx_step._OPERATORS.keys() | onnx_step._COMPOSED.keys()

    assert graph.UNARY | graph.BINARY | graph.COMPARISONS == printed


def test_a_wrong_step_is_detected(monkeypatch):
    net = moved(Recurrent(cells.MGUCell(3, 5)))
    monkeypatch.setitem(onnx_step._OPERATORS, "sigmoid", "Tanh")

    model = to_onnx(net)

    assert difference(net, lambda x, lengths: run(model, x, lengths)) > 1e-2


def test_directions_that_differ_have_a_scan_each():
    model = to_onnx(moved(Bidirectional(cells.LSTMCell(3, 5), cells.LSTMCell(3, 5, bias=False))))

    assert sum(node.op_type == "Scan" for node in model.graph.node) == 2


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: sized(cells.ConvLSTMCell, 3, 5), "its step cannot be written as a graph: aten"),
        (lambda: ZoneoutCell(3, 5), "for random numbers"),
        (lambda: PickingCell(3, 5), "graph: units picked by a mask"),
        (lambda: RunningCell(3, 5), "projects the inputs of several steps together"),
        (lambda: cells.DeltaNetCell(3, 64), "4160 numbers of its state would be unrolled"),
    ],
)
def test_what_has_no_graph_is_refused_with_the_reason_and_the_way_out(make, told):
    with pytest.raises(ConfigError, match=told) as caught:
        to_onnx(make())
    assert "torch.onnx.export(model" in str(caught.value)


def test_no_model_has_a_constant_that_nothing_reads():
    model = to_onnx(Recurrent(cells.MGUCell(3, 5)))
    bodies = [a.g for n in model.graph.node for a in n.attribute if a.name == "body"]

    read = {name for graph in (model.graph, *bodies) for n in graph.node for name in n.input}
    assert {constant.name for constant in model.graph.initializer} <= read
