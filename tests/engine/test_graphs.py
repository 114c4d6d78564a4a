"""Every cell under torch.compile and torch.export."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim

import seqnets
from seqnets import Hierarchical, Recurrent, Reversed, models
from seqnets.cells import (
    ConvLSTMCell,
    DeepTransition,
    Dilated,
    GatedCell,
    GRUCell,
    JANETCell,
    LRUCell,
    LSTMCell,
    MGUCell,
    MinGRUCell,
    PeepholeLSTMCell,
    RNNCell,
    Zoneout,
)
from seqnets.engine.families import family
from seqnets.layers import Truncated
from seqnets.models import SequenceClassifier
from tests.cells.final import FINAL_CELLS, ONE_OF_EACH_KIND, sized
from tests.cells.test_options import with_all
from tests.engine.user_cells import NamesakeCell
from tests.slow import mostly_slow

SIZES = {0: Dim("B", min=1, max=64), 1: Dim("T", min=2, max=512)}


# torch sees one operator of any cell that is traced, or else the operations of its steps
@pytest.mark.parametrize(
    "cell_cls", mostly_slow(FINAL_CELLS, (ConvLSTMCell, LRUCell, LSTMCell, PeepholeLSTMCell))
)
def test_compile_makes_one_graph_of_a_cell(cell_cls):
    layer = Recurrent(sized(cell_cls, 3, 5))
    x = torch.randn(2, 6, layer.input_size)

    compiled = torch.compile(layer, fullgraph=True, backend="eager")

    torch.testing.assert_close(compiled(x), layer(x))


SHARING = {
    "gates": lambda: PeepholeLSTMCell(3, 5),
    "a tuple": lambda: LRUCell(3, 5),
    "options": lambda: Zoneout(Dilated(MGUCell(3, 5), 2), 0.1),
}


@pytest.mark.parametrize("kind", SHARING)
def test_equal_layers_share_what_is_compiled(kind):
    layers, x = [Recurrent(SHARING[kind]()).eval() for _ in range(3)], torch.randn(2, 6, 3)
    graphs = CompileCounter()

    for layer in layers:
        compiled = torch.compile(layer, fullgraph=True, backend=graphs)
        torch.testing.assert_close(compiled(x), layer(x))

    assert graphs.frame_count == 1


class Shared:
    shared = 1.0


class Scaled(Shared, GatedCell):
    gates = ("n",)
    scale = _scale = 1.0

    def update(self, wx, uh, state):
        return (torch.tanh(wx.n + self.scale * self._scale * self.shared * uh.n),)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (JANETCell, "beta", 2.0),
        (PeepholeLSTMCell, "squash", torch.relu),
        *((Scaled, name, 2.0) for name in ("scale", "_scale", "shared")),
    ],
)
def test_a_layer_whose_cell_got_an_attribute_of_its_own_is_compiled_anew(kind, name, value):
    layer, other, x = Recurrent(kind(3, 5)), Recurrent(kind(3, 5)), torch.randn(2, 6, 3)
    torch.compile(layer, fullgraph=True, backend="eager")(x)

    for changed in (other, layer):
        setattr(changed.cell, name, value)
        compiled = torch.compile(changed, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), changed(x))


def test_a_layer_whose_options_or_inner_cell_changed_is_compiled_anew():
    cells, x = [SHARING["options"]() for _ in range(3)], torch.randn(2, 6, 3)
    cells[1].probabilities = (0.5, 0.5)
    cells[2].cell.cell.candidate = torch.relu

    for layer in [Recurrent(cell).eval() for cell in cells]:
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), layer(x))


class Halving(nn.Module):
    def forward(self, a):
        return a / 2 if self.training else a


class Furnished(GatedCell):
    gates = ("n",)

    def add_parameters(self, parameter):
        super().add_parameters(parameter)
        self.norm, self.bend = nn.LayerNorm(self.hidden_size), nn.Sequential(nn.LeakyReLU(0.1))
        self.halving = Halving()

    def update(self, wx, uh, state):
        return (self.halving(self.bend(self.norm(wx.n + uh.n))),)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [("norm", "eps", 1.0), ("bend.0", "negative_slope", 0.5), ("halving", "training", False)],
)
def test_a_layer_is_compiled_anew_where_a_module_inside_its_cell_changed(module, name, value):
    layer, x = Recurrent(Furnished(3, 5)), torch.randn(2, 6, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    compiled(x)

    setattr(layer.cell.get_submodule(module), name, value)

    torch.testing.assert_close(compiled(x), layer(x))


def test_a_layer_that_is_compiled_after_a_change_of_its_cells_class_shows_it(monkeypatch):
    layer, other, x = Recurrent(LSTMCell(3, 5)), Recurrent(LSTMCell(3, 5)), torch.randn(2, 6, 3)
    torch.compile(layer, fullgraph=True, backend="eager")(x)

    monkeypatch.setattr(LSTMCell, "squash", lambda self, a: torch.relu(a))
    compiled = torch.compile(other, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), other(x))


def test_compile_makes_one_graph_of_a_cell_whatever_its_parts_are_called():
    layer, x = Recurrent(NamesakeCell(3, 5)), torch.randn(2, 6, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))

    layer.cell.parts["a,b"].eps = 1.0

    torch.testing.assert_close(compiled(x), layer(x))


def test_compile_makes_one_graph_of_a_step_of_several_updates():
    layer, x = Recurrent(DeepTransition(LSTMCell(3, 5), depth=3)), torch.randn(2, 6, 3)

    compiled = torch.compile(layer, fullgraph=True, backend="eager")

    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, ONE_OF_EACH_KIND))
def test_export_keeps_batch_and_time_open_where_the_cell_is_one_operator(cell_cls):
    cell = sized(cell_cls, 3, 5)
    x = torch.randn(2, 6, cell.input_size)
    traced = "c" not in seqnets.explain(cell, x).refusals
    layer = Recurrent(cell, backend="c" if traced else "auto").eval()

    exported = torch.export.export(layer, (x,), dynamic_shapes=(SIZES,) if traced else None)

    other = torch.randn(3, 9, layer.input_size) if traced else x
    torch.testing.assert_close(exported.module()(other), layer(other))


READERS = {
    "ahead": lambda: Recurrent(LSTMCell(3, 5)),
    "backwards": lambda: Recurrent(GRUCell(3, 5), reverse=True),
    "turned": lambda: Reversed(Recurrent(RNNCell(3, 5))),
    "in segments": lambda: Hierarchical(
        Recurrent(GRUCell(3, 5)), Recurrent(GRUCell(5, 5)), stride=2
    ),
    "classifier": lambda: SequenceClassifier(LSTMCell, 4, input_size=3, hidden_size=5),
}


@pytest.mark.parametrize("name", READERS)
def test_export_keeps_the_batch_open_where_rows_have_lengths(name):
    layer = READERS[name]().eval()
    B = SIZES[0]
    x, lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])

    shapes = ({0: B}, None, {0: B})
    exported = torch.export.export(layer, (x, None, lengths), dynamic_shapes=shapes).module()

    other = torch.randn(4, 6, 3), None, torch.tensor([1, 6, 0, 3])
    torch.testing.assert_close(exported(*other), layer(*other))


@pytest.mark.parametrize("make", [seqnets.LSTM, seqnets.GRU, seqnets.RNN])
def test_torchs_equations_are_exported_for_any_number_of_steps_where_it_is_asked_for(make):
    layer, other = make(3, 5, batch_first=True).eval(), torch.randn(4, 9, 3)
    shapes = {0: Dim("B", min=1), 1: Dim("T", min=1)}

    exported = torch.export.export(layer, (torch.randn(2, 6, 3),), dynamic_shapes=(shapes,))

    torch.testing.assert_close(exported.module()(other), layer(other))


def test_windows_are_exported_for_any_number_of_steps_where_no_gradient_is_asked_for():
    layer, other = Truncated(Recurrent(MGUCell(3, 5)), steps=4), torch.randn(3, 9, 3)

    with torch.no_grad():
        exported = torch.export.export(layer, (torch.randn(2, 6, 3),), dynamic_shapes=(SIZES,))
        torch.testing.assert_close(exported.module()(other), layer(other))


@pytest.mark.parametrize("reverse", [False, True])
def test_cells_that_are_no_operator_are_exported_for_any_number_of_steps_likewise(reverse):
    layer = Recurrent(sized(ConvLSTMCell, 3, 5), reverse=reverse).eval()
    x, lengths = torch.randn(2, 6, layer.input_size), torch.tensor([6, 4])
    other = torch.randn(3, 9, layer.input_size), None, torch.tensor([1, 9, 0])

    with torch.no_grad():
        shapes = (SIZES, None, {0: SIZES[0]})
        exported = torch.export.export(layer, (x, None, lengths), dynamic_shapes=shapes)
        torch.testing.assert_close(exported.module()(*other), layer(*other))


def test_a_stack_that_ran_is_exported_for_any_number_of_rows():
    stack = seqnets.LSTM(3, 80, num_layers=2, batch_first=True).eval()  # too wide for one call
    x, other = torch.randn(2, 6, 3), torch.randn(3, 6, 3)
    stack(x)

    exported = torch.export.export(stack, (x,), dynamic_shapes=({0: SIZES[0]},))

    torch.testing.assert_close(exported.module()(other), stack(other))


@pytest.mark.parametrize("cell_cls", [MinGRUCell, PeepholeLSTMCell])
def test_an_exported_operator_takes_no_empty_list_which_aotinductor_would_lose(cell_cls):
    program = torch.export.export(Recurrent(cell_cls(3, 5)), (torch.randn(2, 6, 3),))

    (call,) = [node for node in program.graph.nodes if "seqnets.unroll" in str(node.target)]

    assert [] not in call.args


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own compiler has some to tell
def test_aotinductor_packs_a_cell(tmp_path):
    layer, x = Recurrent(PeepholeLSTMCell(3, 5)), torch.randn(2, 6, 3)
    with torch.no_grad():
        program = torch.export.export(layer, (x,), dynamic_shapes=(SIZES,))

        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "layer.pt2")
        )

        other = torch.randn(3, 9, 3)
        packed = torch._inductor.aoti_load_package(package)
        torch.testing.assert_close(packed(other), layer(other))


WITHOUT_OPERATOR = [cell for cell in FINAL_CELLS if family(sized(cell, 3, 5)) is None]


@pytest.mark.parametrize("cell_cls", mostly_slow(WITHOUT_OPERATOR, quick=(PeepholeLSTMCell,)))
def test_an_export_to_onnx_sees_torchs_own_operations(cell_cls, monkeypatch):
    layer = Recurrent(sized(cell_cls, 3, 5)).eval()
    x, other = (torch.randn(B, T, layer.input_size) for B, T in ((2, 6), (3, 4)))
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)

    program = torch.export.export(layer, (x,), dynamic_shapes=(SIZES,))

    assert not any("seqnets" in str(node.target) for node in program.graph.nodes)
    assert "scan" in {node.name for node in program.graph.nodes}
    torch.testing.assert_close(program.module()(other), layer(other))


OPTIONED = (LSTMCell, LRUCell)


@pytest.mark.parametrize("cell_cls", mostly_slow(FINAL_CELLS, quick=OPTIONED))
def test_compile_and_export_take_a_cell_with_all_options_that_apply(cell_cls):
    layer = Recurrent(with_all(sized(cell_cls, 3, 5))).eval()
    x = torch.randn(2, 4, layer.input_size)
    expected = layer(x)

    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    exported = torch.export.export(layer, (x,)).module()

    torch.testing.assert_close(compiled(x), expected)
    torch.testing.assert_close(exported(x), expected)


class First(torch.nn.Module):
    """What a model gives first, of features or of tokens."""

    def __init__(self, model, *further):
        super().__init__()
        self.model, self.further = model, further

    def forward(self, x):
        found = self.model(x, *(part[: x.shape[0]] for part in self.further))
        return found[0] if isinstance(found, tuple) else found


TOKENS = torch.zeros(9, 4, dtype=torch.int64)
EXPORTED = {
    "LSTM": lambda: First(seqnets.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)),
    "GRU": lambda: First(seqnets.GRU(3, 4, batch_first=True)),
    "MGU": lambda: First(seqnets.MGU(3, 4, batch_first=True)),
    **{
        f"forecaster, {strategy.__name__}": lambda strategy=strategy: First(
            models.Forecaster(GRUCell, 3, 3, 5, hidden_size=4, strategy=strategy)
        )
        for strategy in (models.Direct, models.EncoderDecoder, models.Parallel)
    },
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EXPORTED)
def test_an_exported_model_takes_any_number_of_rows(kind):
    torch.manual_seed(0)
    model, rows = EXPORTED[kind]().eval(), Dim("B", min=2, max=64)

    exported = torch.export.export(model, (torch.randn(3, 8, 3),), dynamic_shapes=({0: rows},))

    x = torch.randn(5, 8, 3)
    torch.testing.assert_close(exported.module()(x), model(x))
