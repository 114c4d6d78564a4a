"""Conversion to and from torch.nn."""

from functools import partial

import pytest
import torch
from torch import nn

import seqnets
from seqnets import cells
from seqnets.conversion import difference, from_torch, read, to_torch, write
from seqnets.conversion.torch_nn import run
from seqnets.errors import ConfigError
from seqnets.layers import Bidirectional, DeepRNN, Recurrent, Reversed
from seqnets.models import SequenceTagger
from tests.conversion.conftest import drawn, inputs, network, outputs

pytestmark = pytest.mark.usefixtures("plain_loop")

TWINS = [
    (cells.LSTMCell, nn.LSTM, {}),
    (cells.LSTMCell, nn.LSTM, {"proj_size": 2}),
    (cells.GRUCell, nn.GRU, {}),
    (cells.RNNCell, nn.RNN, {"nonlinearity": "tanh"}),
    (cells.RNNCell, nn.RNN, {"nonlinearity": "relu"}),
]
SHAPES = [(1, False), (1, True), (3, False), (2, True)]


def close(ours, theirs):
    torch.testing.assert_close(
        torch.as_tensor(ours), torch.as_tensor(theirs), atol=1e-5, rtol=1e-5, check_dtype=False
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "both"), SHAPES)
@pytest.mark.parametrize(("cell", "twin", "options"), TWINS)
def test_a_network_becomes_torchs_module(cell, twin, options, layers, both, bias):
    net = network(cell, layers, both, bias=bias, **options)
    x = inputs()

    module = to_torch(net)

    assert type(module) is twin
    assert module.batch_first
    close(outputs(net, x), module(x)[0].detach())


def test_a_frozen_weight_stays_frozen():
    module = nn.LSTM(3, 5, 2)
    module.weight_hh_l1.requires_grad_(False)

    converted = from_torch(module)
    back = to_torch(converted)

    for one in (converted, back):
        frozen = [name for name, weight in one.named_parameters() if not weight.requires_grad]
        assert frozen == ["weight_hh_l1"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "both"), SHAPES)
@pytest.mark.parametrize(("cell", "twin", "options"), TWINS)
def test_torchs_module_becomes_a_network(cell, twin, options, layers, both, bias):
    module = drawn(
        twin(3, 5, layers, bidirectional=both, bias=bias, batch_first=True, **options)
    ).double()
    x = inputs().double()

    converted = from_torch(module)

    assert converted.cell_class is cell
    torch.testing.assert_close(converted(x), module(x), atol=1e-12, rtol=0)


def test_a_round_trip_changes_no_number_and_no_option():
    module = nn.LSTM(3, 5, 2, dropout=0.3, bidirectional=True, proj_size=2, dtype=torch.float64)

    back = to_torch(from_torch(module))

    assert repr(back) == repr(module)
    assert back.training
    for name, weight in module.state_dict().items():
        assert torch.equal(back.state_dict()[name], weight)


def test_a_cell_a_layer_and_a_trained_model_can_be_given():
    cell = drawn(cells.GRUCell(3, 5))
    model = SequenceTagger(cells.GRUCell, input_size=3, num_classes=2, hidden_size=5)

    assert torch.equal(to_torch(cell).weight_ih_l0, cell.weight_ih)
    assert to_torch(Recurrent(cell)).batch_first
    assert to_torch(Bidirectional(cell)).bidirectional
    weight = model.encoder.recurrent.layers[0].cell.weight_ih
    assert torch.equal(to_torch(model).weight_ih_l0, weight)


def test_dropout_inside_cells_is_ignored():
    cell = drawn(cells.RecurrentDropout(cells.LSTMCell(3, 5), 0.5)).train()

    assert difference(cell, partial(run, to_torch(cell))) <= 1e-5


def test_locked_dropout_is_left_out_and_not_made_one_of_each_step():
    net = DeepRNN(cells.LSTMCell, 3, 5, 2, dropout=0.3, locked=True)

    with pytest.warns(UserWarning, match=r"dropout=0\.3 is locked, .* it is left out") as warned:
        assert to_torch(net).dropout == 0

    assert [each.filename for each in warned] == [__file__]
    assert to_torch(net.eval()).dropout == 0


def test_weight_drop_is_ignored():
    cell = cells.weight_drop(drawn(cells.LSTMCell(3, 5)), 0.5).train()

    assert difference(cell, partial(run, to_torch(cell))) <= 1e-5


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (cells.PeepholeLSTMCell(3, 5), "PeepholeLSTMCell has no counterpart"),
        (cells.LayerNorm(cells.GRUCell(3, 5)), "LayerNorm has no counterpart"),
        (cells.Zoneout(cells.GRUCell(3, 5)), "Zoneout has no counterpart"),
        (cells.Activations(cells.GRUCell(3, 5), gate="hardsigmoid"), "other activations"),
        (DeepRNN(cells.GRUCell, 3, [5, 6]), "differ in cell, size or direction"),
        (DeepRNN([cells.GRUCell, cells.LSTMCell], 3, 5), "differ in cell, size or direction"),
        (DeepRNN(cells.GRUCell, 3, 5, 2, bidirectional=[True, False]), "differ in cell"),
        (DeepRNN(cells.GRUCell, 5, 5, 2, connection="residual"), "connection='none'"),
        (Bidirectional(cells.GRUCell(3, 5), merge="sum"), "merge is 'sum'"),
        (Bidirectional(*(DeepRNN(cells.GRUCell, 3, 5) for _ in "12")), "DeepRNN layers, expected"),
        (Recurrent(cells.GRUCell(3, 5), reverse=True), "runs backwards only"),
        (Reversed(DeepRNN(cells.GRUCell, 3, 5)), "runs backwards only"),
        (DeepRNN(cells.GRUCell, 5, 5, 2, alternating=True), "runs backwards only"),
        (DeepRNN(cells.GRUCell, 3, 5, 2, connection="dense"), "connection='none'"),
        (DeepRNN(cells.GRUCell, 3, 5, norm="rms"), "norm='none'"),
        (DeepRNN(cells.GRUCell, 3, 5, feed_forward=1), "feed_forward=0"),
        (nn.Linear(3, 5), "has 0 recurrent parts"),
        (nn.Sequential(cells.GRUCell(3, 5), cells.GRUCell(5, 5)), "has 2 recurrent parts"),
    ],
)
def test_what_torch_cannot_represent_is_refused(module, told):
    with pytest.raises(ConfigError, match=told):
        to_torch(module)


def test_an_unknown_module_is_refused():
    with pytest.raises(ConfigError, match=r"expected torch\.nn's RNN, GRU or LSTM"):
        from_torch(nn.LSTMCell(3, 5))


@pytest.mark.parametrize(
    "cell", [cells.GRUCell, cells.PeepholeLSTMCell, cells.NoForgetLSTMCell, cells.OriginalGRUCell]
)
def test_a_file_of_weights_survives_the_round_trip(cell, tmp_path):
    net = network(cell, 2, True)
    path = tmp_path / "net.pt"
    x = inputs()

    assert write(net, path, "torch") <= 1e-5
    back, found = read(path, "torch", cell)

    assert found <= 1e-5
    assert isinstance(back, seqnets.TorchLike)
    close(back(x.transpose(0, 1))[0].transpose(0, 1).detach(), outputs(net, x))


def test_what_is_written_is_a_state_dict_of_torchs_module(tmp_path):
    net = network(cells.LSTMCell, 2)
    write(net, tmp_path / "net.pt", "torch")
    module = nn.LSTM(3, 5, 2, batch_first=True)

    module.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))

    close(outputs(net, inputs()), module(inputs())[0].detach())


def test_a_disk_that_takes_no_more_is_told_with_the_target(tmp_path):
    resource = pytest.importorskip("resource")
    net = seqnets.LSTM(30, 50)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))

    try:
        with pytest.raises(ConfigError, match=r"target: is .*net.pt', .*written: File too large"):
            write(net, tmp_path / "net.pt", "torch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert not [*tmp_path.iterdir()]


def test_the_recurrent_part_of_a_models_file_is_read(tmp_path):
    model = nn.ModuleDict({"rnn": nn.GRU(3, 5), "head": nn.Linear(5, 2)})
    torch.save(model.state_dict(), tmp_path / "model.pth")

    back, _ = read(tmp_path / "model.pth", "torch", cells.GRUCell)

    assert torch.equal(back.weight_hh_l0, model["rnn"].weight_hh_l0)


def test_files_with_too_little_or_too_much_are_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(nn.GRU(3, 5).state_dict(), path)
    with pytest.raises(ConfigError, match="does not say of which cell"):
        read(path, "torch")
    with pytest.raises(ConfigError, match="not those of LSTMCell"):
        read(path, "torch", cells.LSTMCell)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="has 0 weights called"):
        read(path, "torch", cells.GRUCell)
    torch.save({0: torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="has 0 weights called"):
        read(path, "torch", cells.GRUCell)
    torch.save(nn.GRU(3, 5), path)  # a pickled object
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        read(path, "torch", cells.GRUCell)
    path.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        read(path, "torch", cells.GRUCell)
    with pytest.raises(ConfigError, match="cannot be read as tensors alone"):
        read(tmp_path / "nowhere.pt", "torch", cells.GRUCell)


def test_a_path_may_be_a_string_and_an_unknown_format_is_refused(tmp_path):
    net, path = network(cells.GRUCell, 1, False), str(tmp_path / "net.pt")

    write(net, path, "torch")

    assert isinstance(read(path, "torch", cells.GRUCell)[0], seqnets.GRU)
    for use in (lambda: write(net, path, "pt"), lambda: read(path, "pt", cells.GRUCell)):
        with pytest.raises(ConfigError, match="convert: form is 'pt', expected one of torch, ker"):
            use()
