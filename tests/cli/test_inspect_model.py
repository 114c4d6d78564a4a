"""The inside of a trained model is drawn from its checkpoint."""

import sys
import warnings

import pytest
from matplotlib.image import imread

from seqnets.cli.main import command
from seqnets.training import dynamics

from .conftest import SMALL, only_run

PARITY = ["dataset=parity", "dataset.length=6", "dataset.train_size=40", "dataset.test_size=20"]


def trained(folder, *options):
    """The folder of a run that has been trained in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["seqnets"])
        assert command(["train", *SMALL, "logger=none", *options]) == 0
    return only_run(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run of a bidirectional classifier of bits."""
    folder = tmp_path_factory.mktemp("classifier")
    options = ["dataset.batch_size=8", "dataset.shortest_length=2", "model.bidirectional=true"]
    return trained(folder, *PARITY, *options, "model/cell=gru")


def test_each_layer_and_direction_has_pictures_and_a_line_of_the_table(
    seqnets, classifier, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "insight").mkdir()
    (tmp_path / "insight" / "states.0.forward_layer.png").write_text("old")

    done = seqnets("inspect", f"checkpoint={classifier}", "row=19", "overwrite=true")

    names = [f"{way}_layer" for way in ("backward", "forward")]
    files = [f"{kind}.0.{name}.png" for kind in ("fixed_points", "states") for name in names]
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "insight").iterdir()) == files
    assert all(imread(tmp_path / "insight" / file).shape[1] == 1300 for file in files)
    lines = [line.split() for line in done.out.splitlines()]
    for name in names:
        (line,) = (line for line in lines if line[:1] == [f"0.{name}"])
        assert line[1] == "GRUCell"
        assert sum(map(int, line[2:6])) > 0
    assert done.out.splitlines()[-1] == "4 pictures written to insight."
    assert max(map(len, done.out.splitlines())) <= 80


def test_letters_that_no_font_has_are_not_told_one_by_one(seqnets, small_text, tmp_path):
    (tmp_path / "text.txt").write_text("\U0001f469\U0001f467 " * 400)
    seqnets("train", *small_text, "dataset.path=text.txt", "logger=none")

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        done = seqnets("inspect", f"checkpoint={only_run(tmp_path)}")

    assert done.code == 0, done.err
    assert not [one for one in told if "Glyph" in str(one.message)]


def test_pictures_are_replaced_only_if_asked_to(seqnets, classifier, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "states.layers.0.png").write_text("old")

    done = seqnets("inspect", f"checkpoint={classifier}", "to=mine")

    assert done.code == 1
    assert "to: mine has pictures already, expected a new folder" in done.err
    assert (tmp_path / "mine" / "states.layers.0.png").read_text() == "old"


def test_a_language_model_is_drawn_with_its_text(seqnets, small_text, tmp_path):
    assert seqnets("train", *small_text, "logger=none").code == 0

    done = seqnets("inspect", "checkpoint=last", "part=train", "row=1", "at=e")

    assert done.code == 0, done.err
    assert "Checkpoint: " in done.err
    assert len(list((tmp_path / "insight").glob("*.layers.0.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["part=tset"], 2, "Did you mean test"),
        (["row=-1"], 2, "row: is -1, expected a whole number of at least 0"),
        (["row=20"], 2, "row: is 20, expected a number below 20, the sequences of the test part"),
        (["to="], 2, "to: is empty"),
        ([f"to={__file__}/pictures"], 1, "pictures', expected a folder that can be written to"),
        (["overwrite=no"], 2, "overwrite: is 'no'"),
        (["at=2"], 1, "at: none of the steps that were looked at reads '2'"),
        (["dataset=adding"], 2, "dataset: is determined by the checkpoint"),
        (["samples=oops"], 2, "samples: is about a dataset, expected no checkpoint"),
        (["baselines=7"], 2, "baselines: is about a dataset"),
        (["seed=1"], 2, "seed: is about a dataset"),
        (["model=tagger"], 2, "model: is determined by the checkpoint"),
        (["checkpoint=nowhere"], 1, "Checkpoint nowhere: is not there"),
    ],
)
def test_what_cannot_be_looked_into_is_told(arguments, code, told, seqnets, classifier, tmp_path):
    done = seqnets("inspect", f"checkpoint={classifier}", *arguments)

    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.rglob("*.png"))


def test_a_state_that_is_too_large_for_fixed_points_is_said_to_be(
    seqnets, classifier, monkeypatch, tmp_path
):
    monkeypatch.setattr(dynamics, "LARGEST", 3)

    done = seqnets("inspect", f"checkpoint={classifier}")

    told = "0.forward_layer has no fixed points: a state has 4 numbers, expected at most 3."
    assert done.code == 0, done.err
    assert told in done.out.splitlines()
    assert sorted(path.name[:6] for path in (tmp_path / "insight").iterdir()) == ["states"] * 2
