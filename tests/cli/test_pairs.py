"""Texts in, texts out: from two files to a translated one."""

import json

import pytest

from .conftest import SMALL


@pytest.fixture
def files(tmp_path):
    lines = {"en": "a small house !\nthe big house !\n", "de": "ein haus !\ndas große haus !\n"}
    for name, text in lines.items():
        (tmp_path / f"pairs.{name}").write_text(text * 10, "utf-8")
    return [f"dataset.source_path={tmp_path / 'pairs.en'}",
            f"dataset.target_path={tmp_path / 'pairs.de'}"]  # fmt: skip


def test_what_was_trained_on_two_files_rewrites_a_third(seqnets, files, tmp_path):
    trained = seqnets(
        "train", *SMALL, "dataset=pairs", *files, "dataset.max_vocabulary=280",
        "dataset.batch_size=4", "model.feed=output", "model/attention=bahdanau",
    )  # fmt: skip
    (folder,) = (tmp_path / "runs").glob("*/*")
    (tmp_path / "new.txt").write_text("a big house !\nthe house !\n", "utf-8")

    done = seqnets("predict", f"checkpoint={folder}", "input=new.txt", "to=out.jsonl")

    assert trained.code == 0, trained.err
    assert "copying the source" in trained.out
    assert "bleu" in trained.out
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [row["source"] for row in rows] == ["a big house !", "the house !"]
    assert all(row["target"] is None and isinstance(row["prediction"], str) for row in rows)


def test_words_that_the_model_does_not_know_are_written_as_the_file_has_them(
    seqnets, files, tmp_path
):
    seqnets(
        "train", *SMALL, "dataset=pairs", *files, "dataset.unit=words", "dataset.batch_size=4",
        "dataset.max_vocabulary=4",
    )  # fmt: skip
    (folder,) = (tmp_path / "runs").glob("*/*")
    (tmp_path / "new.csv").write_text("source,target\na  huge house !,ein haus !\na house,\n")

    new = seqnets("predict", f"checkpoint={folder}", "input=new.csv", "to=new.jsonl")
    part = seqnets("predict", f"checkpoint={folder}", "to=part.jsonl")
    scored = seqnets("evaluate", f"checkpoint={folder}", "predictions=new.jsonl")

    assert new.code == part.code == scored.code == 0, new.err + part.err + scored.err
    said, known = (
        [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]
        for name in ("new.jsonl", "part.jsonl")
    )
    assert [row["source"] for row in said] == ["a huge house !", "a house"]
    assert [row["target"] for row in said] == ["ein haus !", None]
    assert {row["target"] for row in known} <= {"ein haus !", "das große haus !"}
    assert "Results on 1 row" in scored.out


def test_a_model_may_have_no_attention(seqnets):
    done = seqnets(
        "train", *SMALL, "dataset=sort", "dataset.train_size=64", "dataset.test_size=32",
        "model.attention=null",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "exact match" in done.out


@pytest.mark.parametrize("kind", ["luong", "bahdanau"])
def test_attentions_are_listed(seqnets, kind):
    assert kind in seqnets("list", "attentions").out
