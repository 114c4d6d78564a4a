"""The experiments on the Penn Treebank, on files as small as their models here."""

import pytest

from seqnets.training import load_checkpoint

from .conftest import SMALL

T = {"ptb_small": 20, "ptb_medium": 35}


@pytest.fixture
def ptb(tmp_path):
    for part, lines in {"train": 400, "valid": 60, "test": 60}.items():
        text = " to be or not to be \n" * lines
        (tmp_path / f"ptb.{part}.txt").write_text(text, "utf-8")
    return tmp_path


@pytest.mark.parametrize("experiment", T)
def test_two_steps_of_an_experiment(experiment, seqnets, ptb):
    done = seqnets(
        "train", *SMALL, f"experiment={experiment}", f"dataset.root={ptb}", "trainer.max_epochs=1",
        "model.embedding_size=4", "dataset.batch_size=2",
    )  # fmt: skip

    (folder,) = (ptb / "runs").glob("*/*")
    config = load_checkpoint(folder / "checkpoints" / "last.ckpt")["seqnets"]["config"]
    assert done.code == 0, done.err
    assert "perplexity" in done.out
    # the paper's loss is a sum over the steps: its rate 1 and its norm 5, for a mean
    assert config["optimizer"]["lr"] == config["dataset"]["chunk_length"] == T[experiment]
    assert config["trainer"]["gradient_clip_val"] == pytest.approx(5 / T[experiment])


def test_the_dataset_alone_counts_in_words(seqnets, ptb):
    done = seqnets("train", *SMALL, "dataset=ptb", f"dataset.root={ptb}", "dataset.batch_size=2")

    assert done.code == 0, done.err
    assert "perplexity" in done.out


def test_without_a_folder_the_option_is_named(seqnets):
    done = seqnets("train", "experiment=ptb_small")

    assert done.code == 2
    assert "dataset.root: is not given" in done.err
