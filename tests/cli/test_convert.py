"""``seqnets convert``: from file to file, and from a trained run."""

import pytest
import torch
from torch import nn

from tests.conversion.conftest import keras_home  # noqa: F401

REASON = "needs pip install 'seqnets[convert]'"
WARNING = "ignore:__array__ implementation:DeprecationWarning"  # Keras' own


@pytest.fixture
def lstm(tmp_path):
    """A file of weights of torch.nn's, and the module."""
    module = nn.LSTM(3, 5, 2, bidirectional=True)
    torch.save(module.state_dict(), tmp_path / "lstm.pt")
    return module


@pytest.mark.filterwarnings(WARNING)
@pytest.mark.parametrize(
    ("library", "file"), [("onnx", "net.onnx"), ("keras", "net.keras"), ("flax", "net.msgpack")]
)
def test_weights_go_to_another_library_and_back(library, file, lstm, seqnets, tmp_path):
    pytest.importorskip(library, reason=REASON)
    if library == "onnx":
        pytest.importorskip("onnxruntime", reason=REASON)

    there = seqnets("convert", "source=lstm.pt", "model/cell=lstm", f"target={file}")
    cell = ["model/cell=lstm"] * (library == "flax")
    back = seqnets("convert", f"source={file}", *cell, "target=back.pt")

    assert (there.code, there.err) == (0, "")
    assert "2 layers of LSTMCell, 3 to 5 units, both directions" in there.out
    assert f"{library:7}differs by at most" in there.out
    assert (back.code, back.err) == (0, "")
    weights = torch.load(tmp_path / "back.pt", weights_only=True)
    for name, weight in lstm.state_dict().items():
        if name.startswith("weight"):
            torch.testing.assert_close(weights[name], weight, atol=1e-7, rtol=0)


def test_a_trained_models_recurrent_part_is_taken(seqnets, small_text, tmp_path):
    seqnets("train", *small_text, "model/cell=gru", "output=runs")
    (run,) = tmp_path.glob("runs/text/*")

    done = seqnets("convert", f"source={run}", "target=gru.pt")

    assert (done.code, done.err) == (0, "")
    assert "1 layer of GRUCell" in done.out
    weights = torch.load(tmp_path / "gru.pt", weights_only=True)
    assert weights["weight_hh_l0"].shape == (12, 4)
    for last in ("last", "runs/text/last"):
        latest = seqnets("convert", f"source={last}", "target=latest.pt", "overwrite=true")
        assert latest.code == 0
        assert latest.err == f"Checkpoint: runs/text/{run.name}/checkpoints/best.ckpt\n"


def test_a_trained_model_of_any_cell_becomes_a_model_of_onnx(seqnets, small_text, tmp_path):
    pytest.importorskip("onnxruntime", reason=REASON)
    seqnets("train", *small_text, "model/cell=mgu", "output=runs")
    (run,) = tmp_path.glob("runs/text/*")

    done = seqnets("convert", f"source={run}", "target=mgu.onnx")
    back = seqnets("convert", "source=mgu.onnx", "target=mgu.pt")

    assert (done.code, done.err) == (0, "")
    assert "onnx   differs by at most" in done.out
    assert "1 layer of MGUCell" in done.out
    assert back.code == 1
    assert "a Scan runs over time" in back.err


def test_relu_is_an_option_of_the_cell(seqnets, tmp_path):
    pytest.importorskip("onnx", reason=REASON)
    torch.save(nn.RNN(3, 5, nonlinearity="relu").state_dict(), tmp_path / "rnn.pt")
    cell = ["model/cell=rnn", "+model.cell.nonlinearity=relu"]

    done = seqnets("convert", "source=rnn.pt", *cell, "target=rnn.onnx", "lengths=false")

    assert (done.code, done.err) == (0, "")
    assert b"Relu" in (tmp_path / "rnn.onnx").read_bytes()


def test_a_file_that_is_there_is_overwritten_only_if_told_to(lstm, seqnets, tmp_path):
    (tmp_path / "new.pt").write_text("precious")
    convert = ["convert", "source=lstm.pt", "model/cell=lstm", "target=new.pt"]

    refused = seqnets(*convert)
    kept = (tmp_path / "new.pt").read_text()
    done = seqnets(*convert, "overwrite=true")

    assert refused.code == 1
    assert "target: new.pt exists already, expected a new file" in refused.err
    assert kept == "precious"
    assert (done.code, done.err) == (0, "")
    assert torch.load(tmp_path / "new.pt", weights_only=True).keys() == lstm.state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "source: is not given"),
        (["source=a.txt", "target=b.onnx"], 2, "does not imply a format"),
        (["source=lstm.pt", "target=b.ckpt"], 2, "does not imply a format"),
        (["source=lstm.pt", "target=b", "to=onxx"], 2, "Did you mean onnx?"),
        (["source=lstm.pt", "target=b.onnx", "lengths=maybe"], 2, "expected true or false"),
        (["source=lstm.pt", "target=b.onnx"], 1, "does not say of which cell"),
        (["source=lstm.pt", "target=b.onnx", "model/cell=gru"], 1, "not those of GRUCell"),
        (
            ["source=nowhere.pt", "target=b.onnx", "model/cell=gru"],
            1,
            "source: 'nowhere.pt' is not there",
        ),
        (
            ["source=lstm.pt", "target=b.onnx", "model/cell=lstm", "+model.cell.bais=true"],
            1,
            "Did you mean bias?",
        ),
        (["source=nowhere.ckpt", "target=b.onnx"], 1, "is not there"),
    ],
)
def test_what_cannot_be_converted_is_told_and_nothing_is_written(
    arguments, code, told, lstm, seqnets, tmp_path
):
    done = seqnets("convert", *arguments)

    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.pt"]
