"""``seqnets export``: from a trained run to a file that another program runs."""

import csv
import json
import sys
from itertools import groupby

import pytest
import torch

from seqnets.cli.main import command

from .conftest import SMALL, only_run

F64 = torch.float64
CELL = """
import seqnets


class MyCell(seqnets.GatedCell):
    gates = ("f", "n")

    def update(self, wx, uh, state):
        (h,) = state
        f = self.gate(wx.f + uh.f)
        return (h + f * (self.candidate(wx.n + f * uh.n) - h),)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with walks of several lengths, and a run of a cell of one's own on them."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [
        f"{n},{'abc'[n % 3]},{1e5 + n % 3 + step / 10},{n * step % 7}"
        for n in range(60)
        for step in range(2 + n % 5)
    ]
    (folder / "walks.csv").write_text("\n".join(["sequence,label,east,north", *rows]) + "\n")
    (folder / "exportedcells.py").write_text(CELL)
    (folder / "conf" / "model" / "cell").mkdir(parents=True)
    config = "# Mine\n_target_: exportedcells.MyCell\n_partial_: true\n"
    (folder / "conf" / "model" / "cell" / "my_cell.yaml").write_text(config)
    own = ["--config-dir", "conf", "model/cell=my_cell", "allow=[exportedcells]"]
    data = ["dataset=classification", "dataset.path=walks.csv"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setattr(sys, "argv", ["seqnets"])
        assert command(["train", *own, *SMALL, *data, "trainer.max_epochs=3"]) == 0
    return folder


@pytest.fixture
def classifier(trained, monkeypatch):
    """What names the run, and allows its cell."""
    monkeypatch.syspath_prepend(trained)
    return f"checkpoint={only_run(trained)}", "allow=[exportedcells]"


def read(path):
    """The sequences of a table: their names, and tensors of their features, padded."""
    with path.open(newline="", encoding="utf-8") as file:
        steps = [*csv.DictReader(file)]
    found = {
        name: torch.tensor([[float(row[c]) for c in ("east", "north")] for row in rows], dtype=F64)
        for name, rows in groupby(steps, lambda row: row["sequence"])
    }
    x = torch.nn.utils.rnn.pad_sequence([*found.values()], batch_first=True)
    return [*found], x, torch.tensor([*map(len, found.values())])


def test_the_file_says_what_predict_says_without_the_cell(seqnets, trained, classifier, tmp_path):
    done = seqnets("export", *classifier, "target=there/model.pt2")
    seqnets("predict", *classifier, f"input={trained / 'walks.csv'}", "to=said.jsonl")

    files = {"seqnets.json": ""}
    model = torch.export.load(tmp_path / "there" / "model.pt2", extra_files=files).module()
    names, x, lengths = read(trained / "walks.csv")
    shares = model(x, lengths)["probabilities"]

    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    labels = json.loads(files["seqnets.json"])["data"]["labels"]
    assert (done.code, done.err) == (0, "")
    assert [row["id"] for row in said] == names
    assert [row["prediction"] for row in said] == [labels[n] for n in shares.argmax(-1)]
    found = torch.tensor([row["probability"] for row in said])
    torch.testing.assert_close(shares.amax(-1), found, atol=2e-6, rtol=0)


def test_what_goes_in_and_out_is_told_and_for_what_it_was_compared(seqnets, classifier, trained):
    done = seqnets("export", *classifier, "format=pt2")  # from a folder without walks.csv
    (trained / "model.pt2").unlink(missing_ok=True)

    assert (done.code, done.err) == (0, "")
    assert "pt2    differs by at most " in done.out
    assert "on random inputs alone, since the run's data cannot be read" in done.out
    assert "\nmodel.pt2 (SequenceClassifier, " in done.out
    assert " KiB)\n" in done.out
    assert "\nx (B, T, 2) float64\nlengths (B) int64\n" in done.out
    assert "\nprobabilities (B, 3) float32\n" in done.out


def test_where_the_data_are_some_of_them_are_compared(
    seqnets, classifier, trained, monkeypatch, tmp_path
):
    monkeypatch.chdir(trained)

    done = seqnets("export", *classifier, f"target={tmp_path / 'model.pt2'}")

    assert done.code == 0, done.err
    assert "on random inputs and on some of the test part" in done.out


def test_a_run_that_named_a_backend_is_exported_without_it(seqnets):
    seqnets("train", "dataset=parity", "model.backend=eager", *SMALL, "++dataset.train_size=20")

    done = seqnets("export", "checkpoint=last", "target=model.pt2")

    assert done.code == 0, done.err
    assert "pt2    differs by at most" in done.out


def test_a_file_that_is_there_is_overwritten_only_if_told_to(seqnets, classifier, tmp_path):
    (tmp_path / "model.pt2").write_text("precious")

    refused = seqnets("export", *classifier, "target=model.pt2")
    kept = (tmp_path / "model.pt2").read_text()
    done = seqnets("export", *classifier, "target=model.pt2", "overwrite=true")

    assert refused.code == 1
    assert "target: model.pt2 exists already, expected a new file" in refused.err
    assert kept == "precious"
    assert done.code == 0, done.err
    assert torch.export.load(tmp_path / "model.pt2")


def test_a_model_that_writes_becomes_two_files_and_neither_is_overwritten(seqnets, tmp_path):
    seqnets("train", *SMALL, "dataset=sort", "dataset.train_size=32", "dataset.test_size=8")
    (tmp_path / "model.decoder.pt2").write_text("precious")

    refused = seqnets("export", "checkpoint=last", "format=pt2")
    kept = [path.read_text() for path in tmp_path.glob("*.pt2")]
    done = seqnets("export", "checkpoint=last", "format=pt2", "overwrite=true")

    assert refused.code == 1
    assert "target: model.decoder.pt2 exists already, expected a new file" in refused.err
    assert kept == ["precious"]
    assert done.code == 0, done.err
    assert "on random inputs and on some of the test part" in done.out
    for half in ("encoder", "decoder"):
        assert f"\nmodel.{half}.pt2 (SequenceToSequence, " in done.out
    assert "\nlogits (B, 12) float32\n" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "checkpoint: is not given"),
        (["checkpoint=nowhere"], 1, "Checkpoint nowhere: is not there"),
        (["checkpoint=last"], 1, "no run in 'runs' has a checkpoint"),
        (["target=model.txt"], 2, "expected a name that ends with .onnx or .pt2"),
        (["target=''"], 2, "target: is empty, expected a file.\n"),
        (["target=model.PT2", "format=onnx"], 2, "ends with .PT2, which is another format's"),
        (["format=onxx"], 2, "Did you mean onnx?"),
        (["target=model.pt2", "overwrite=maybe"], 2, "expected true or false"),
        (["target=model.pt2", "model/cell=gru"], 2, "is determined by the checkpoint"),
        (["traget=model.pt2"], 2, "Did you mean target"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(
    arguments, code, told, seqnets, classifier, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "onnxscript", sys)  # which the format asks for
    if arguments and not arguments[0].startswith("checkpoint"):
        arguments = [*classifier, *arguments]

    done = seqnets("export", *arguments)

    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_told_before_the_checkpoint_is_read(seqnets, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)

    done = seqnets("export", "checkpoint=nowhere")

    assert done.code == 1
    assert "pip install 'seqnets[onnx]'" in done.err
